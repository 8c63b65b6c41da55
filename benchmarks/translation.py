"""Benchmarks of address translation and of the first touch and the unmapping of anonymous memory."""

import functools
from typing import Final

from benchmarks.kernels import first_touch, touch_at_random, touch_in_order, unmap_whole_area
from benchmarks.registry import Benchmark
from node.build import build_state
from node.spec import MachineSpec
from node.state import State
from node.touch import become
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from shared.constants import MIB, PAGE_SHIFT, PAGE_SIZE

MM: Final = 1
FIRST_LEVEL_PAGES: Final = 32  # half of the first level
SECOND_LEVEL_PAGES: Final = 1024  # 16 times the first level, two thirds of the second
WALK_PAGES: Final = 1 << 20
FAULT_PAGES: Final = 1 << 18
HITS: Final = 4_000_000
WALKS: Final = 1_000_000
# Memory besides the pages: the kernel's own, descriptors, tables, and the low watermarks.
SPARE_BYTES: Final = 160 * MIB


def map_pages(state: State, nr_pages: int) -> None:
    """Give process MM an area of ``nr_pages``."""
    mmap(state, MM, nr_pages << PAGE_SHIFT, VmFlag.READ | VmFlag.WRITE)


def machine(nr_pages: int) -> State:
    """Return a machine with one running process and room for ``nr_pages``."""
    state = build_state(
        MachineSpec(memory_bytes=nr_pages * PAGE_SIZE + nr_pages * PAGE_SIZE // 32 + SPARE_BYTES)
    )
    new_mm(state)
    become(state, MM)
    return state


def touched(nr_pages: int) -> State:
    """Return a machine whose process has ``nr_pages`` in memory."""
    state = machine(nr_pages)
    map_pages(state, nr_pages)
    first_touch(state, MM, area_start(state), nr_pages)
    return state


def area_start(state: State) -> int:
    """Return where the process's only area begins."""
    return int(state.vma[state.mm[MM].first_vma].start)


def _in_order(nr_pages: int, count: int, state: State) -> tuple[int, ...]:
    return MM, area_start(state), nr_pages, count


def _area(state: State) -> tuple[int, ...]:
    return MM, area_start(state)


def _pages(nr_pages: int, state: State) -> tuple[int, ...]:
    return MM, area_start(state), nr_pages


def _unmap(state: State) -> None:
    unmap_whole_area(state, *_area(state))


def _map_and_touch(nr_pages: int, state: State) -> None:
    map_pages(state, nr_pages)
    first_touch(state, *_pages(nr_pages, state))


def suite(*, hits: int, walks: int, walk_pages: int) -> tuple[Benchmark, ...]:
    """Return the benchmarks of translation with these numbers of operations and pages."""
    return (
        Benchmark(
            name="TLB hit",
            operations=hits,
            target_per_s=40e6,
            prepare=functools.partial(touched, FIRST_LEVEL_PAGES),
            entry=touch_in_order,
            arguments=functools.partial(_in_order, FIRST_LEVEL_PAGES, hits),
        ),
        Benchmark(
            name="second-level TLB hit",
            operations=hits,
            target_per_s=30e6,
            prepare=functools.partial(touched, SECOND_LEVEL_PAGES),
            entry=touch_in_order,
            arguments=functools.partial(_in_order, SECOND_LEVEL_PAGES, hits),
        ),
        Benchmark(
            name="random walk over 1M pages",
            operations=walks,
            target_per_s=6e6,
            prepare=functools.partial(touched, walk_pages),
            entry=touch_at_random,
            arguments=functools.partial(_in_order, walk_pages, walks),
        ),
    )


def fault_suite(*, fault_pages: int) -> tuple[Benchmark, ...]:
    """Return the benchmarks of the first touch and the unmapping of so many pages."""
    return (
        Benchmark(
            name="first-touch fault",
            operations=fault_pages,
            target_per_s=6e6,
            prepare=functools.partial(machine, fault_pages),
            entry=first_touch,
            arguments=functools.partial(_pages, fault_pages),
            before=functools.partial(map_pages, nr_pages=fault_pages),
            after=_unmap,
            own_kernel="first_touch",
        ),
        Benchmark(
            name="unmap",
            operations=fault_pages,
            target_per_s=15e6,
            prepare=functools.partial(machine, fault_pages),
            entry=unmap_whole_area,
            arguments=_area,
            before=functools.partial(_map_and_touch, fault_pages),
            own_kernel="munmap",
        ),
    )


BENCHMARKS: Final = (
    *suite(hits=HITS, walks=WALKS, walk_pages=WALK_PAGES),
    *fault_suite(fault_pages=FAULT_PAGES),
)
