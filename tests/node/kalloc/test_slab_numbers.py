"""What SLAB says of itself, and that a machine with it is kept and goes on as if nothing had been."""

import pytest

from node import checkpoint
from node.kalloc.slab_numbers import SlabInfo, SlabStats, slab_slabinfo, slab_stats
from node.state import State
from tests.models.slab_machine import alloc_on, create_cache, free_on, slab_machine

pytestmark = pytest.mark.three_ways


def work(state: State, cache: int) -> list[int]:
    held = [alloc_on(state, turn % 2, cache) for turn in range(100)]
    for paddr in held[::3]:
        free_on(state, 1, cache, paddr)
    return held


def test_slabinfo_counts_objects_in_arrays_as_active() -> None:
    state = slab_machine(cpus=2)
    cache = create_cache(
        state, "told", 200
    )  # 20 in a slab; CPUs' arrays take 16 of the first, 20 of the next
    alloc_on(state, 0, cache)
    assert slab_slabinfo(state, cache) == SlabInfo(
        active_objs=16,
        num_objs=20,
        objsize=200,
        objperslab=20,
        pagesperslab=1,
        limit=120,
        batchcount=60,
        sharedfactor=8,
        active_slabs=1,
        num_slabs=1,
        sharedavail=0,
    )
    assert slab_stats(state, cache) == SlabStats(
        allocs=16,
        high=16,
        grown=1,
        reaped=0,
        errors=0,
        max_freeable=0,
        node_allocs=0,
        node_frees=0,
        overflows=0,
        allochit=0,
        allocmiss=1,
        freehit=0,
        freemiss=0,
        refill_shared=0,
        refill_partial=0,
        refill_free=0,
        refill_new=16,
        grow_failed=0,
    )


def test_a_restored_machine_hands_out_the_same_objects() -> None:
    state = slab_machine(cpus=2)
    cache = create_cache(state, "kept", 300)
    work(state, cache)
    restored, _ = checkpoint.restore(checkpoint.snapshot(state, {}))
    assert checkpoint.digest(restored) == checkpoint.digest(state)
    assert work(restored, cache) == work(state, cache)
    assert checkpoint.digest(restored) == checkpoint.digest(state)
