"""Benchmarks of address spaces: fork, the writes that part two processes again, and the search for an area.

One operation is one page-table entry. Each fork finds entries that may be written and pages that are the parent's
alone, as the first fork of a process does: the child's end and the parent's writing to every page come before it,
outside the time. Each write finds a page that the child maps too, and copies it.

The search is for addresses drawn from all that lies between the lowest area and the end of the highest, gaps included:
one look-up in ten thousand is served by the area found last, the others go down the tree.
"""

import functools
from typing import Final

from benchmarks.kernels import find_areas_at_random, first_touch
from benchmarks.registry import Benchmark
from benchmarks.translation import MM, area_start, machine, map_pages
from node.state import State
from node.vm.fork import fork_mm
from node.vm.mmap import mmap_fixed
from node.vm.unmap import exit_mmap
from shared.constants import PAGE_SHIFT, PAGE_SIZE

PAGES: Final = 1 << 18  # 1 GiB
AREAS: Final = 10_000
LOOKUPS: Final = 1_000_000
AREA_BYTES: Final = 3 * PAGE_SIZE
AREA_STEP_BYTES: Final = 4 * PAGE_SIZE  # a page of gap between two areas
FIRST_AREA: Final = 1 << 30
STRIDE: Final = 7919  # a prime, so that every area's turn comes once
CHILD: Final = MM + 1  # every time: the pool of address spaces hands out what it took back last
SIDES: Final = 2  # parent and child, each with its own copy in the end


def parent(nr_pages: int) -> State:
    """Return a machine whose process has written to ``nr_pages``, with room for a copy of each."""
    state = machine(SIDES * nr_pages)
    map_pages(state, nr_pages)
    _write_all(nr_pages, state)
    return state


def _pages(nr_pages: int, state: State) -> tuple[int, ...]:
    return MM, area_start(state), nr_pages


def _write_all(nr_pages: int, state: State) -> None:
    first_touch(state, *_pages(nr_pages, state))


def _parent(_state: State) -> tuple[int, ...]:
    return (MM,)


def _fork(state: State) -> None:
    fork_mm(state, MM)


def _end_child(state: State) -> None:
    exit_mmap(state, CHILD)


def suite(*, pages: int) -> tuple[Benchmark, ...]:
    """Return the benchmarks over a process of so many pages."""
    return (
        Benchmark(
            name="fork",
            operations=pages,
            target_per_s=60e6,
            prepare=functools.partial(parent, pages),
            before=functools.partial(_write_all, pages),
            entry=fork_mm,
            arguments=_parent,
            after=_end_child,
            own_kernel="fork",
        ),
        Benchmark(
            name="copy-on-write break",
            operations=pages,
            target_per_s=4e6,
            prepare=functools.partial(parent, pages),
            before=_fork,
            entry=first_touch,
            arguments=functools.partial(_pages, pages),
            after=_end_child,
            own_kernel="copy_on_write",
        ),
    )


# --- the search for an area -----------------------------------------------------------------------------


def scattered_areas(nr_areas: int) -> State:
    """Return a machine whose process has so many areas, with gaps between, mapped in no order."""
    state = machine(1)
    for number in range(nr_areas):
        start = FIRST_AREA + (number * STRIDE % nr_areas) * AREA_STEP_BYTES
        mmap_fixed(state, MM, start, start + AREA_BYTES)
    return state


def _anywhere(nr_areas: int, lookups: int, _state: State) -> tuple[int, ...]:
    return MM, FIRST_AREA, nr_areas * AREA_STEP_BYTES >> PAGE_SHIFT, lookups


def search_suite(*, areas: int, lookups: int) -> tuple[Benchmark, ...]:
    """Return the benchmark of the search among so many areas."""
    return (
        Benchmark(
            name=f"VMA look-up among {areas:,} areas",
            operations=lookups,
            target_per_s=15e6,
            prepare=functools.partial(scattered_areas, areas),
            entry=find_areas_at_random,
            arguments=functools.partial(_anywhere, areas, lookups),
        ),
    )


BENCHMARKS: Final = (*suite(pages=PAGES), *search_suite(areas=AREAS, lookups=LOOKUPS))
