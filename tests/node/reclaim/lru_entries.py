"""What Python calls in tests of the LRU lists."""

from node.reclaim.lru import lru_add, lru_add_tail, lru_del, lru_note_cost, lru_rotate
from node.reclaim.scan_control import inactive_is_low
from node.state import State
from shared.jit import entry


@entry
def do_lru_add(state: State, which: int, pfn: int) -> None:
    lru_add(state, which, pfn)


@entry
def do_lru_add_tail(state: State, which: int, pfn: int) -> None:
    lru_add_tail(state, which, pfn)


@entry
def do_lru_del(state: State, pfn: int) -> None:
    lru_del(state, pfn)


@entry
def do_lru_rotate(state: State, pfn: int) -> None:
    lru_rotate(state, pfn)


@entry
def do_lru_note_cost(state: State, nr_pages: int) -> None:
    lru_note_cost(state, nr_pages)


@entry
def do_inactive_is_low(state: State) -> int:
    return inactive_is_low(state)
