"""Benchmark of ksmd: a full scan of pages that are all calm and all different, the worst case of its trees."""

from typing import Final

from benchmarks.registry import Benchmark
from benchmarks.translation import MM, area_start, machine
from node.counters import Request
from node.ksm.ksmd import ksm_do_scan
from node.state import State
from node.touch import Fill, fill_pages
from node.vm.madvise import madvise_mergeable
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from shared.constants import PAGE_SHIFT

NR_PAGES: Final = 100_000
WHOLE_SCAN: Final = NR_PAGES + 1  # one more finds the end of the list
SEED: Final = 1


def calm_pages() -> State:
    """Return a machine with 100,000 distinct mergeable pages that ksmd has seen twice."""
    state = machine(NR_PAGES)
    mmap(state, MM, NR_PAGES << PAGE_SHIFT, VmFlag.READ | VmFlag.WRITE)
    start = area_start(state)
    madvise_mergeable(state, MM, start, start + (NR_PAGES << PAGE_SHIFT))
    for place, value in ((Request.A0, start), (Request.A1, NR_PAGES), (Request.A5, SEED), (Request.A7, 0)):
        state.request[place] = value
    fill_pages(state, MM, Fill.UNIQUE, 0)
    ksm_do_scan(state, WHOLE_SCAN)
    ksm_do_scan(state, WHOLE_SCAN)
    return state


SCAN: Final = Benchmark(
    name="ksm scan, 100,000 distinct pages",
    operations=NR_PAGES,
    target_per_s=2e6,
    prepare=calm_pages,
    entry=ksm_do_scan,
    arguments=lambda _state: (WHOLE_SCAN,),
)

BENCHMARKS: Final[tuple[Benchmark, ...]] = ()
