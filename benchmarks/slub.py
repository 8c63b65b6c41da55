"""Benchmarks of SLUB: its fast paths, and a mixture of sizes on several CPUs.

What is measured is SLUB alone: in the mixture ``min_partial`` is raised, as an administrator may raise it, so
that empty slabs stay on the nodes' lists, of which there are enough before it begins.
"""

import functools
from typing import Final

import numpy as np

from benchmarks.kernels import NR_CPUS, NR_SIZES, slub_mixed, slub_pairs
from benchmarks.registry import Benchmark
from node.build import build_state
from node.counters import Current
from node.joints import kfree, kmalloc
from node.kalloc.cache_list import caches, create_cache
from node.kalloc.kmem_cache import WORD_BYTES
from node.phys.page import PageFlag
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, PAGE_SHIFT
from shared.gfp_flags import GFP_KERNEL

PAIRS: Final = 4_000_000
MIXED: Final = 1_000_000
NR_LIVE: Final = 4096  # objects in use at a time
OBJECT_BYTES: Final = 256
MEMORY_BYTES: Final = 256 * MIB
SPARE_SLABS: Final = 32  # made beforehand of each size, besides what all objects need: the CPUs hold some
KMALLOC_LARGE_FROM: Final = 8193  # bytes: frames, not a slab
KEEP_ALL: Final = 1 << 20  # min_partial: more slabs than there are frames


def one_cache() -> State:
    """Return a machine with one cache, its number 1, of which this CPU has a slab."""
    state = build_state(MachineSpec(memory_bytes=MEMORY_BYTES))
    create_cache(state, "benchmark", OBJECT_BYTES)
    slub_pairs(state, 1, 1)
    return state


def several_cpus(nr_live: int) -> State:
    """Return a machine with an array for ``nr_live`` addresses, and slabs enough for so many objects of any size."""
    state = build_state(MachineSpec(memory_bytes=MEMORY_BYTES, cpus=NR_CPUS))
    kmalloc(state, max(nr_live * WORD_BYTES, KMALLOC_LARGE_FROM), GFP_KERNEL)
    kfree(state, kmalloc(state, WORD_BYTES, GFP_KERNEL))
    for cache in caches(state):
        state.slub_cache[cache].min_partial = KEEP_ALL
    for step in range(NR_SIZES):
        size = WORD_BYTES << step
        kfree(state, kmalloc(state, size, GFP_KERNEL))
        per_slab = max(
            state.kmem_cache[cache].objects_per_slab
            for cache in caches(state)
            if state.kmem_cache[cache].object_size == size
        )
        nr_objects = nr_live + SPARE_SLABS * per_slab
        spread = [kmalloc(state, size, GFP_KERNEL) for _ in range(nr_objects)]
        for number, paddr in enumerate(spread):
            state.current[Current.CPU] = number % NR_CPUS
            kfree(state, paddr)
    state.current[Current.CPU] = 0
    return state


def _array(state: State) -> int:
    """Return the address of the only block that kmalloc took from the page allocator."""
    return int(np.flatnonzero(state.page["page_flags"] & PageFlag.COMPOUND)[0]) << PAGE_SHIFT


def _pairs(count: int, _state: State) -> tuple[int, ...]:
    return 1, count


def _mixed(nr_live: int, count: int, state: State) -> tuple[int, ...]:
    return _array(state), nr_live, count


def suite(*, pairs: int, mixed: int, nr_live: int) -> tuple[Benchmark, ...]:
    """Return the benchmarks with these numbers of pairs of an allocation and a free, and of objects in use."""
    return (
        Benchmark(
            name="SLUB fast path, alloc and free",
            operations=pairs,
            target_per_s=50e6,
            prepare=one_cache,
            entry=slub_pairs,
            arguments=functools.partial(_pairs, pairs),
        ),
        Benchmark(
            name="SLUB mixed sizes on 4 CPUs",
            operations=mixed,
            target_per_s=15e6,
            prepare=functools.partial(several_cpus, nr_live),
            entry=slub_mixed,
            arguments=functools.partial(_mixed, nr_live, mixed),
        ),
    )


BENCHMARKS: Final = suite(pairs=PAIRS, mixed=MIXED, nr_live=NR_LIVE)
