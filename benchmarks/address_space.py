"""Benchmarks of what two processes share: fork, and the writes that part them again.

One operation is one page-table entry. Each fork finds entries that may be written and pages that are the parent's
alone, as the first fork of a process does: the child's end and the parent's writing to every page come before it,
outside the time. Each write finds a page that the child maps too, and copies it.
"""

import functools
from typing import Final

from benchmarks.kernels import first_touch
from benchmarks.registry import Benchmark
from benchmarks.translation import MM, area_start, machine, map_pages
from node.state import State
from node.vm.fork import fork_mm
from node.vm.unmap import exit_mmap

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


BENCHMARKS: Final[tuple[Benchmark, ...]] = ()
