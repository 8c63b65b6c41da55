"""The LRU lists against Python lists."""

from math import isqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import VmStat
from node.reclaim.lru import NR_LRU_LISTS, LruList
from node.state import State
from tests.models.lru import LruModel, pages_on
from tests.node.reclaim.lru_entries import (
    do_inactive_is_low,
    do_lru_add,
    do_lru_add_tail,
    do_lru_del,
    do_lru_note_cost,
    do_lru_rotate,
)

pytestmark = pytest.mark.three_ways

NR_FRAMES = 12
INACTIVE = LruList.INACTIVE_ANON
ACTIVE = LruList.ACTIVE_ANON


def empty_lists() -> State:
    lengths = dict.fromkeys(State.LAYOUT, 1) | {
        "panic": 4,
        "page": NR_FRAMES,
        "lru": NR_LRU_LISTS,
        "vm_stat": VmStat.NR,
    }
    return State(**lengths)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "tail", "rotate", "del"]),
            st.sampled_from(LruList),
            st.integers(1, NR_FRAMES - 1),
        )
    )
)
def test_the_lists_are_those_of_the_model(steps: list[tuple[str, int, int]]) -> None:
    state = empty_lists()
    model = LruModel()
    for action, which, pfn in steps:
        listed = model.list_of(pfn) is not None
        if action == "add" and not listed:
            do_lru_add(state, which, pfn)
            model.lists[which].insert(0, pfn)
        elif action == "tail" and not listed:
            do_lru_add_tail(state, which, pfn)
            model.lists[which].append(pfn)
        elif action == "rotate" and listed and pfn not in model.lists[LruList.UNEVICTABLE]:
            inactive = INACTIVE if model.list_of(pfn) in (INACTIVE, ACTIVE) else LruList.INACTIVE_FILE
            do_lru_rotate(state, pfn)
            model.remove(pfn)
            model.lists[inactive].append(pfn)
        elif action == "del" and listed:
            do_lru_del(state, pfn)
            model.remove(pfn)
        assert model.same_as(state)


def test_a_rotated_active_page_is_the_next_that_reclaim_looks_at() -> None:
    state = empty_lists()
    for pfn in (1, 2, 3):
        do_lru_add(state, INACTIVE, pfn)
    do_lru_add(state, ACTIVE, 4)
    do_lru_rotate(state, 4)
    assert pages_on(state, INACTIVE) == [3, 2, 1, 4]
    assert pages_on(state, ACTIVE) == []


@pytest.mark.parametrize("pages", [0, 1, 100, 262_143, 262_144, 3 * 262_144, 100 * 262_144, 8000 * 262_144])
@pytest.mark.parametrize("inactive_percent", [0, 3, 9, 24, 26, 49, 50, 51, 100])
def test_the_inactive_list_is_low_by_linuxs_formula(pages: int, inactive_percent: int) -> None:
    state = empty_lists()
    inactive = pages * inactive_percent // 100
    state.lru[INACTIVE].nr_pages = inactive
    state.lru[ACTIVE].nr_pages = pages - inactive
    gib = pages // 262_144
    ratio = isqrt(10 * gib) if gib else 1
    assert do_inactive_is_low(state) == (inactive * ratio < pages - inactive)


def test_costs_are_halved_when_they_pass_a_quarter_of_the_pages() -> None:
    state = empty_lists()
    state.lru[INACTIVE].nr_pages = 50
    state.lru[ACTIVE].nr_pages = 50
    do_lru_note_cost(state, 25)
    assert state.lru[INACTIVE].cost == 25
    do_lru_note_cost(state, 1)
    assert state.lru[INACTIVE].cost == 13
