"""Pools of records, against a set of what is handed out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.findings import check_pools, used_records
from node.pool import Pool, pool_alloc, pool_free
from node.state import State
from shared.constants import NIL

pytestmark = pytest.mark.three_ways

CAPACITY = 6


def state_with_pools() -> State:
    """Return a state whose pools hold CAPACITY records each, the first of which is never handed out."""
    lengths = dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "pool": Pool.NR, "pool_link": Pool.NR * CAPACITY}
    state = State(**lengths)
    for which in range(Pool.NR):
        pool = state.pool[which]
        pool.first_link = which * CAPACITY
        pool.capacity = CAPACITY
        pool.mark = 1
        pool.first_free = NIL
    return state


def test_records_are_handed_out_from_one_and_a_full_pool_says_so() -> None:
    state = state_with_pools()
    assert [pool_alloc(state, Pool.VMA) for _ in range(CAPACITY)] == [1, 2, 3, 4, 5, NIL]
    assert state.pool[Pool.VMA].nr_used == CAPACITY - 1


def test_the_record_freed_last_is_handed_out_first() -> None:
    state = state_with_pools()
    for _ in range(4):
        pool_alloc(state, Pool.MM)
    pool_free(state, Pool.MM, 2)
    pool_free(state, Pool.MM, 4)
    assert [pool_alloc(state, Pool.MM) for _ in range(3)] == [4, 2, 5]


def test_pools_do_not_share_links() -> None:
    state = state_with_pools()
    for which in (Pool.MM, Pool.VMA):
        for _ in range(3):
            pool_alloc(state, which)
    pool_free(state, Pool.MM, 1)
    pool_free(state, Pool.VMA, 3)
    assert pool_alloc(state, Pool.MM) == 1
    assert pool_alloc(state, Pool.VMA) == 3


@given(st.lists(st.integers(0, CAPACITY), max_size=40))
def test_what_is_in_use_is_what_was_handed_out_and_not_freed(choices: list[int]) -> None:
    state = state_with_pools()
    in_use: set[int] = set()
    for choice in choices:
        if choice in in_use:
            pool_free(state, Pool.RMAP_ITEM, choice)
            in_use.remove(choice)
            continue
        index = pool_alloc(state, Pool.RMAP_ITEM)
        assert (index == NIL) == (len(in_use) == CAPACITY - 1)
        if index != NIL:
            assert index not in in_use
            in_use.add(index)
    assert {i for i, used in enumerate(used_records(state, Pool.RMAP_ITEM)) if used} == in_use
    assert check_pools(state) == []
