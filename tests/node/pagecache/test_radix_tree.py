"""The tree of a file's pages, against a dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.pagecache.radix_tree import RADIX_SLOTS, radix_erase, radix_find, radix_insert, radix_next
from node.pool import Pool
from node.state import State
from shared.constants import NIL

pytestmark = pytest.mark.three_ways

NR_NODES = 200
INODE = 1
# Small numbers, numbers around the borders of nodes, and some that need a high tree.
PLACES = st.one_of(st.integers(0, 5), st.integers(60, 68), st.integers(4090, 4100), st.integers(0, 1 << 34))


def empty_file(nr_nodes: int = NR_NODES) -> State:
    """Return a state with one file without pages, and this many nodes."""
    sizes = {
        "panic": 4,
        "pool": Pool.NR,
        "pool_link": nr_nodes + 1,
        "inode": INODE + 1,
        "radix_node": nr_nodes + 1,
        "radix_slot": (nr_nodes + 1) * RADIX_SLOTS,
    }
    state = State(**dict.fromkeys(State.LAYOUT, 1) | sizes)
    pool = state.pool[Pool.RADIX_NODE]
    pool.capacity = nr_nodes + 1
    pool.mark = 1
    pool.first_free = NIL
    return state


@given(st.lists(PLACES, max_size=40), st.lists(PLACES, max_size=5), st.sampled_from([7, NR_NODES]))
def test_pages_are_found_by_number_and_in_order(choices: list[int], asked: list[int], nr_nodes: int) -> None:
    state = empty_file(nr_nodes)
    model: dict[int, int] = {}
    for number, index in enumerate(choices, start=1):
        if index in model:
            radix_erase(state, INODE, index)
            del model[index]
        elif radix_insert(state, INODE, index, number) == NIL:
            assert state.pool[Pool.RADIX_NODE].nr_used <= nr_nodes < NR_NODES
        else:
            model[index] = number
        for place in (*model, *asked):
            assert radix_find(state, INODE, place) == model.get(place, 0)
            following = [index for index in model if index >= place]
            assert radix_next(state, INODE, place) == min(following, default=NIL)
    for index in model:
        radix_erase(state, INODE, index)
    assert state.pool[Pool.RADIX_NODE].nr_used == 0
    assert state.inode[INODE].radix_root == 0


def test_a_page_without_a_node_to_hold_it_changes_nothing_that_is_found() -> None:
    state = empty_file(nr_nodes=2)
    assert radix_insert(state, INODE, 0, 11) == 0
    assert radix_insert(state, INODE, 70, 12) == NIL
    assert radix_find(state, INODE, 0) == 11
    assert radix_next(state, INODE, 0) == 0
    assert radix_next(state, INODE, 1) == NIL
    assert radix_insert(state, INODE, 63, 13) == 0


def test_a_large_number_costs_one_node_a_level() -> None:
    state = empty_file()
    radix_insert(state, INODE, 64**3, 5)
    assert state.inode[INODE].radix_height == 4
    assert state.pool[Pool.RADIX_NODE].nr_used == 4
