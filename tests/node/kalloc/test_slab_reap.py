"""cache_reap: memory that caches do not need comes back by itself, every two seconds."""

import pytest

from node.counters import Current
from node.joints import run_kthreads
from node.kalloc.slab_numbers import slab_slabinfo, slab_stats
from node.kthread import Kthread
from node.state import State
from shared.constants import PS_PER_MS, PS_PER_S
from tests.models.slab_machine import alloc_on, create_cache, free_on, slab_machine

pytestmark = pytest.mark.three_ways


def cache_at_rest(state: State, nr_objects: int = 1000) -> int:
    cache = create_cache(state, "resting", 500)
    for paddr in [alloc_on(state, 0, cache) for _ in range(nr_objects)]:
        free_on(state, 0, cache, paddr)
    return cache


def test_each_cpu_runs_every_two_seconds_three_ticks_apart() -> None:
    state = slab_machine(cpus=3)
    assert state.slab_reaper["next_ps"].tolist() == [PS_PER_S + cpu * 12 * PS_PER_MS for cpu in range(3)]
    run_kthreads(state, 10 * PS_PER_S)
    assert state.slab_reaper["nr_runs"].tolist() == [5, 5, 5]
    assert 11 * PS_PER_S <= state.kthread[Kthread.SLAB_REAP].clock_ps < 11 * PS_PER_S + PS_PER_MS


def test_a_resting_cache_loses_its_objects_and_its_slabs() -> None:
    state = slab_machine(cpus=2)
    cache = cache_at_rest(state)
    sizes = [slab_slabinfo(state, cache).num_slabs]
    for seconds in range(2, 62, 4):
        run_kthreads(state, seconds * PS_PER_S)
        sizes.append(slab_slabinfo(state, cache).num_slabs)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 20
    assert sizes[-1] == 0
    assert slab_stats(state, cache).reaped > 0


def test_an_array_that_is_used_keeps_its_objects() -> None:
    state = slab_machine()
    cache = create_cache(state, "busy", 500)
    for seconds in range(2, 42, 2):
        state.current[Current.CLOCK_PS] = seconds * PS_PER_S - PS_PER_MS
        free_on(state, 0, cache, alloc_on(state, 0, cache))
        run_kthreads(state, seconds * PS_PER_S)
    assert slab_stats(state, cache).allocmiss == 1


def test_the_first_visit_only_notes_that_an_array_rests_and_the_next_takes_a_fifth() -> None:
    state = slab_machine()
    cache = create_cache(state, "noted", 500)  # an array of 54, filled by 16 as it was not touched before
    for paddr in [alloc_on(state, 0, cache) for _ in range(40)]:
        free_on(state, 0, cache, paddr)
    array = state.slab_array[cache * 2]
    assert array.avail == 40
    seen = []
    for seconds in (2, 4, 6, 8, 10, 12):
        run_kthreads(state, seconds * PS_PER_S)
        seen.append(array.avail)
    assert seen == [40, 29, 18, 7, 3, 1]  # 11 = (54 + 4) / 5; of fewer than that, half
