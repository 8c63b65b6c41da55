"""Bounce buffers: runs of slots against a row of slots that are taken or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.phys.bounce import IO_TLB_SEGSIZE, BouncePool
from node.state import State
from shared.constants import NIL
from tests.models.dma import SlotModel
from tests.node.phys.dma_entries import do_alloc_bounce, do_free_bounce

pytestmark = pytest.mark.three_ways

NR_AREAS = 3
FIRST_AREA = 1  # the other pool has one


def pool_of_three_areas() -> State:
    nr_slots = (FIRST_AREA + NR_AREAS) * IO_TLB_SEGSIZE
    lengths = dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "bounce_pool": 2, "bounce_slot": nr_slots}
    state = State(**lengths)
    pool = state.bounce_pool[BouncePool.PCI]
    pool.first_slot = FIRST_AREA * IO_TLB_SEGSIZE
    pool.nr_slots = NR_AREAS * IO_TLB_SEGSIZE
    for slot in range(nr_slots):
        state.bounce_slot[slot].nr_free = IO_TLB_SEGSIZE - slot % IO_TLB_SEGSIZE
    return state


# What to do: reserve so many frames, or give back the run of this number.
STEPS = st.lists(
    st.one_of(st.tuples(st.just("alloc"), st.integers(1, 64)), st.tuples(st.just("free"), st.integers(0, 9))),
    max_size=60,
)


@given(steps=STEPS)
def test_runs_are_found_as_in_a_row_of_slots(steps: list[tuple[str, int]]) -> None:
    state = pool_of_three_areas()
    pool = state.bounce_pool[BouncePool.PCI]
    model = SlotModel(NR_AREAS * IO_TLB_SEGSIZE)
    runs: list[tuple[int, int]] = []
    refused = 0
    for what, number in steps:
        if what == "alloc":
            slot = do_alloc_bounce(state, BouncePool.PCI, 1000, number)
            expected = model.alloc(2 * number)
            if expected is None:
                refused += 1
                assert slot == NIL
            else:
                assert slot == pool.first_slot + expected
                runs.append((slot, number))
        elif runs:
            slot, nr_frames = runs.pop(number % len(runs))
            do_free_bounce(state, BouncePool.PCI, slot, nr_frames)
            model.free(slot - pool.first_slot, 2 * nr_frames)
        assert pool.nr_used == len(model.taken)
    said = state.bounce_slot["nr_free"][pool.first_slot :].tolist()
    assert said == [model.free_from(slot) for slot in range(model.nr_slots)]
    assert pool.nr_full == refused
    untouched = state.bounce_slot["nr_free"][: pool.first_slot].tolist()
    assert untouched == list(range(IO_TLB_SEGSIZE, 0, -1))


def test_a_slot_knows_the_frame_that_it_stands_for() -> None:
    state = pool_of_three_areas()
    slot = do_alloc_bounce(state, BouncePool.PCI, 77, 2)
    assert state.bounce_slot["orig_pfn"][slot : slot + 4].tolist() == [77, 77, 78, 78]


def test_no_run_crosses_two_areas() -> None:
    state = pool_of_three_areas()
    assert do_alloc_bounce(state, BouncePool.PCI, 0, 63) == IO_TLB_SEGSIZE
    assert do_alloc_bounce(state, BouncePool.PCI, 0, 2) == 2 * IO_TLB_SEGSIZE


def test_an_empty_pool_refuses_and_counts() -> None:
    state = pool_of_three_areas()
    assert do_alloc_bounce(state, BouncePool.ISA, 0, 1) == NIL
    assert state.bounce_pool[BouncePool.ISA].nr_full == 1
