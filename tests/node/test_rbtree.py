"""Red-black trees, against a sorted list."""

from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rbtree import Color, Side, Tree, rb_erase, rb_link, rb_replace
from node.rbtree_check import tree_in_order
from node.state import State
from shared.constants import NIL

pytestmark = pytest.mark.three_ways

NR_NODES = 64


def empty_trees() -> State:
    state = State(**dict.fromkeys(State.LAYOUT, 1) | {"panic": 4, "rb_node": NR_NODES, "rb_root": Tree.NR})
    state.rb_root[:] = NIL
    return state


def insert(state: State, index: int) -> None:
    """Insert a node, ordered by its index."""
    parent = NIL
    side = Side.LEFT
    at = state.rb_root[Tree.STABLE]
    while at != NIL:
        parent = at
        side = Side.LEFT if index < at else Side.RIGHT
        at = state.rb_node[at].left if index < at else state.rb_node[at].right
    rb_link(state, Tree.STABLE, index, parent, side)


def depth(state: State, index: int) -> int:
    if index == NIL:
        return 0
    node = state.rb_node[index]
    return 1 + max(depth(state, node.left), depth(state, node.right))


@given(st.lists(st.integers(0, NR_NODES - 1), max_size=120))
def test_any_insertions_and_erasures_leave_a_balanced_tree_in_order(choices: list[int]) -> None:
    state = empty_trees()
    model: list[int] = []
    for index in choices:
        if index in model:
            rb_erase(state, Tree.STABLE, index)
            model.remove(index)
        else:
            insert(state, index)
            insort(model, index)
        assert tree_in_order(state, Tree.STABLE) == (model, [])


def test_ascending_insertions_do_not_make_a_list_of_it() -> None:
    state = empty_trees()
    for index in range(NR_NODES):
        insert(state, index)
    assert depth(state, int(state.rb_root[Tree.STABLE])) <= 2 * (NR_NODES + 1).bit_length()


@given(st.sets(st.integers(0, NR_NODES // 2 - 1), min_size=1))
def test_a_replaced_node_stands_where_the_old_one_stood(members: set[int]) -> None:
    state = empty_trees()
    for member in members:
        insert(state, 2 * member)
    old = 2 * sorted(members)[len(members) // 2]
    rb_replace(state, Tree.STABLE, old, old + 1)
    expected = sorted({2 * member for member in members} - {old} | {old + 1})
    assert tree_in_order(state, Tree.STABLE) == (expected, [])


def test_trees_of_one_table_do_not_touch_each_other() -> None:
    state = empty_trees()
    for index in range(0, NR_NODES, 2):
        insert(state, index)
    rb_link(state, Tree.UNSTABLE, 1, NIL, Side.LEFT)
    rb_link(state, Tree.UNSTABLE, 3, 1, Side.RIGHT)
    rb_erase(state, Tree.UNSTABLE, 1)
    assert tree_in_order(state, Tree.UNSTABLE) == ([3], [])
    assert tree_in_order(state, Tree.STABLE) == (list(range(0, NR_NODES, 2)), [])


def test_a_tree_with_two_red_nodes_in_a_row_is_found_wrong() -> None:
    state = empty_trees()
    for index in range(8):
        insert(state, index)
    red = next(i for i in range(8) if state.rb_node[i].color == Color.RED)
    state.rb_node[red].color = Color.BLACK
    _, wrong = tree_in_order(state, Tree.STABLE)
    assert wrong[-1].startswith("STABLE tree: ways down have")
