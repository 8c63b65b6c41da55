"""Benchmark of ksmd: a full scan of pages that are all calm and all different, the worst case of its trees."""

import functools
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
SEED: Final = 1


def _whole_scan(nr_pages: int) -> int:
    return nr_pages + 1  # one more finds the end of the list


def calm_pages(nr_pages: int) -> State:
    """Return a machine with so many distinct mergeable pages that ksmd has seen twice."""
    state = machine(nr_pages)
    mmap(state, MM, nr_pages << PAGE_SHIFT, VmFlag.READ | VmFlag.WRITE)
    start = area_start(state)
    madvise_mergeable(state, MM, start, start + (nr_pages << PAGE_SHIFT))
    for place, value in ((Request.A0, start), (Request.A1, nr_pages), (Request.A5, SEED), (Request.A7, 0)):
        state.request[place] = value
    fill_pages(state, MM, Fill.UNIQUE, 0)
    ksm_do_scan(state, _whole_scan(nr_pages))
    ksm_do_scan(state, _whole_scan(nr_pages))
    return state


def suite(*, pages: int) -> tuple[Benchmark, ...]:
    """Return the benchmark over so many pages."""
    return (
        Benchmark(
            name=f"ksm scan, {pages:,} distinct pages",
            operations=pages,
            target_per_s=2e6,
            prepare=functools.partial(calm_pages, pages),
            entry=ksm_do_scan,
            arguments=lambda _state: (_whole_scan(pages),),
        ),
    )


BENCHMARKS: Final = suite(pages=NR_PAGES)
