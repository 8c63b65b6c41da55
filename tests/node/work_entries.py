"""What Python calls in tests of workloads."""

from node.state import State
from node.work import run_work, zipf_page
from shared.jit import entry


@entry
def do_zipf_page(state: State, base: int, nr_pages: int, draw: int) -> int:
    return zipf_page(state, base, nr_pages, draw)


@entry
def do_run_work(state: State, index: int, limit_ps: int) -> None:
    run_work(state, index, limit_ps)
