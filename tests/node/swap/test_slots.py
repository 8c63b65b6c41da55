"""Swap slots: random use against a dictionary, and where each algorithm puts pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current
from node.joints import (
    add_to_swap,
    dup_swap_entry,
    free_swap_entry,
    remove_mapping,
    swap_writepage,
    try_to_free_swap,
)
from node.phys.page import PageFlag
from node.state import State
from node.swap.slots import SWAP_CLUSTER_COLUMNS, SWAPFILE_CLUSTER
from shared.constants import NIL, PS_PER_S
from tests.models.swap import Slot, SwapModel, check_area, slots_of
from tests.node.swap.small_swap import add_pages, swap_machine

pytestmark = pytest.mark.three_ways

ACTIONS = ("add", "add", "dup", "dup", "undup", "unswap", "write", "remove")
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 60), st.integers(0, 1)), min_size=60, max_size=200
)


def step(state: State, model: SwapModel, action: str, number: int) -> None:
    """Do one thing to the state and the model."""
    pfn = 1 + number % (len(state.page) - 1)
    slot = model.slot_of(pfn)
    some = sorted(model.used)[number % len(model.used)] if model.used else None
    if action == "add" and slot is None:
        nr_free = model.nr_slots - 1 - len(model.used)
        got = add_to_swap(state, pfn)
        assert (got == NIL) == (nr_free == 0)
        if got != NIL:
            assert model.may_hand_out(got)
            model.used[got] = Slot(pfn=pfn)
    elif action == "dup" and some is not None:
        dup_swap_entry(state, some)
        model.used[some].users += 1
    elif action == "undup" and some is not None and model.used[some].users:
        free_swap_entry(state, some)
        model.drop_user(some)
    elif action == "unswap" and slot is not None:
        assert try_to_free_swap(state, pfn) == (model.used[slot].users == 0)
        if model.used[slot].users == 0:
            model.uncache(pfn)
    elif action == "write" and slot is not None:
        state.page[pfn].content = 1000 + number
        swap_writepage(state, pfn)
        if model.used[slot].users == 0:
            model.uncache(pfn)
        else:
            assert state.swap_slot[slot].content == 1000 + number
        state.current[Current.CLOCK_PS] += PS_PER_S
    elif action == "remove" and slot is not None:
        clean = not state.page[pfn].page_flags & (PageFlag.DIRTY | PageFlag.WRITEBACK)
        assert remove_mapping(state, pfn) == clean
        if clean:
            model.uncache(pfn)


@pytest.mark.parametrize(("nr_slots", "rotational"), [(30, 0), (30, 1), (700, 0), (300, 1)])
@given(steps=STEPS)
def test_slots_are_used_as_in_the_model(
    nr_slots: int, rotational: int, steps: list[tuple[str, int, int]]
) -> None:
    state = swap_machine(nr_slots, rotational)
    model = SwapModel(nr_slots)
    for action, number, cpu in steps:
        state.current[Current.CPU] = cpu
        step(state, model, action, number)
        assert slots_of(state) == model.used
    check_area(state)


@pytest.mark.parametrize("rotational", [0, 1])
def test_a_full_area_hands_out_every_slot_but_the_header_and_then_none(rotational: int) -> None:
    state = swap_machine(SWAPFILE_CLUSTER * 2 + 10, rotational, nr_frames=600)
    slots = add_pages(state, range(1, SWAPFILE_CLUSTER * 2 + 10))
    for slot in slots:
        dup_swap_entry(state, slot)
    assert sorted(slots) == list(range(1, SWAPFILE_CLUSTER * 2 + 10))
    assert add_to_swap(state, 599) == NIL
    check_area(state)


def test_each_cpu_fills_a_cluster_of_its_own() -> None:
    state = swap_machine(SWAPFILE_CLUSTER * 4, 0)
    slots: list[list[int]] = [[], []]
    for pfn in range(1, 11):
        state.current[Current.CPU] = pfn % 2
        slots[pfn % 2].append(add_to_swap(state, pfn))
    first = slots[1][0]
    other = slots[0][0]
    assert slots[1] == list(range(first, first + 5))
    assert slots[0] == list(range(other, other + 5))
    assert {first, other} == {SWAPFILE_CLUSTER, 2 * SWAPFILE_CLUSTER}


def test_free_clusters_are_listed_in_columns() -> None:
    state = swap_machine(SWAPFILE_CLUSTER * (2 * SWAP_CLUSTER_COLUMNS + 2), 0)
    order: list[int] = []
    index = state.swap_area[0].first_free_cluster
    while index and len(order) < 4:
        order.append(index)
        index = state.swap_cluster[index].next
    assert order == [SWAP_CLUSTER_COLUMNS, 2 * SWAP_CLUSTER_COLUMNS, 1, SWAP_CLUSTER_COLUMNS + 1]


def test_an_emptied_cluster_goes_to_the_end_of_the_free_list() -> None:
    state = swap_machine(SWAPFILE_CLUSTER * 5, 0)
    slots = add_pages(state, range(1, 4))
    assert slots[0] == SWAPFILE_CLUSTER
    for pfn in range(1, 4):
        assert try_to_free_swap(state, pfn)
    check_area(state)
    assert add_to_swap(state, 1) == 2 * SWAPFILE_CLUSTER
    assert state.swap_area[0].last_free_cluster == 1


def test_a_disk_continues_in_a_run_of_free_slots() -> None:
    state = swap_machine(1000, 1, nr_frames=500)
    slots = add_pages(state, range(1, 401))
    for slot in slots:
        dup_swap_entry(state, slot)
    assert slots == list(range(1, 401))
    # Holes in front are shorter than a run, so the next run is looked for behind them.
    for pfn in (10, 11, 300):
        free_swap_entry(state, slots[pfn - 1])
        assert try_to_free_swap(state, pfn)
    nr_left_of_run = 2 * SWAPFILE_CLUSTER - 400
    more = add_pages(state, range(401, 401 + nr_left_of_run - 20))
    assert more == list(range(401, 401 + nr_left_of_run - 20))


def test_a_disk_without_a_run_takes_the_next_free_slot() -> None:
    state = swap_machine(SWAPFILE_CLUSTER + 1, 1, nr_frames=400)
    slots = add_pages(state, range(1, SWAPFILE_CLUSTER + 1))
    for slot in slots:
        dup_swap_entry(state, slot)
    for pfn in (50, 120):
        free_swap_entry(state, slots[pfn - 1])
        try_to_free_swap(state, pfn)
    assert add_pages(state, range(300, 302)) == [50, 120]
    assert add_to_swap(state, 310) == NIL


def test_slots_that_only_the_cache_holds_are_taken_back_once_swap_is_half_full() -> None:
    state = swap_machine(11, 1)
    slots = add_pages(state, range(1, 10))
    for slot in slots[3:]:
        dup_swap_entry(state, slot)
    assert add_to_swap(state, 20) == 10
    # No slot is free by now, and Linux does not look for such slots then.
    assert add_to_swap(state, 21) == NIL
    free_swap_entry(state, slots[8])
    assert slots[8] not in slots_of(state)
    assert add_to_swap(state, 22) in (slots[0], slots[8])
    check_area(state)


def test_a_page_being_written_keeps_its_slot_when_its_last_entry_goes() -> None:
    state = swap_machine(11, 0)
    slot = add_to_swap(state, 1)
    dup_swap_entry(state, slot)
    swap_writepage(state, 1)
    assert state.page[1].page_flags & PageFlag.WRITEBACK
    free_swap_entry(state, slot)
    assert not try_to_free_swap(state, 1)
    assert slots_of(state) == {slot: Slot(users=0, pfn=1)}
    state.current[Current.CLOCK_PS] += PS_PER_S
    assert try_to_free_swap(state, 1)
    assert slots_of(state) == {}
    check_area(state)


def test_a_clean_page_that_only_the_caller_holds_leaves_its_slot_behind() -> None:
    state = swap_machine(11, 0)
    slot = add_to_swap(state, 1)
    dup_swap_entry(state, slot)
    assert not remove_mapping(state, 1)  # DIRTY: the device has no copy
    swap_writepage(state, 1)
    assert not remove_mapping(state, 1)  # not written yet
    state.current[Current.CLOCK_PS] += PS_PER_S
    state.page[1].refcount += 1
    assert not try_to_free_swap(state, 1)  # completes the write
    assert not remove_mapping(state, 1)  # somebody else uses it
    state.page[1].refcount -= 1
    assert not state.page[1].page_flags & (PageFlag.WRITEBACK | PageFlag.DIRTY)
    assert remove_mapping(state, 1)
    assert slots_of(state) == {slot: Slot(users=1)}
    free_swap_entry(state, slot)
    assert slots_of(state) == {}
    check_area(state)
