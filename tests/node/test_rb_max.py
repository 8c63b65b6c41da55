"""Trees that know the largest value below each node, and intervals in them, against a sorted list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rb_max import change_own, erase_max, insert_max, interval_first, interval_next
from node.rbtree import Tree
from node.rbtree_check import tree_in_order
from node.state import State
from shared.constants import NIL

pytestmark = pytest.mark.three_ways

NR_NODES = 40
SPAN = 60
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "flip", "change"]),
        st.integers(0, NR_NODES - 1),
        st.integers(0, SPAN),
        st.integers(0, 20),
    ),
    max_size=80,
)


def empty_trees() -> State:
    sizes = {"panic": 4, "rb_node": NR_NODES, "rb_max": NR_NODES, "rb_root": Tree.NR}
    state = State(**dict.fromkeys(State.LAYOUT, 1) | sizes)
    state.rb_root[:] = NIL
    return state


def build(steps: list[tuple[str, int, int, int]]) -> tuple[State, dict[int, tuple[int, int]]]:
    """Return a tree after these steps, and the interval of each node in it."""
    state = empty_trees()
    model: dict[int, tuple[int, int]] = {}
    for what, node, first, length in steps:
        if what == "change":
            if node in model:
                model[node] = (model[node][0], model[node][0] + length)
                change_own(state, node, model[node][1])
        elif node in model:
            erase_max(state, Tree.STABLE, node)
            del model[node]
        else:
            model[node] = (first, first + length)
            insert_max(state, Tree.STABLE, node, first, first + length)
    return state, model


def members(state: State, node: int) -> list[int]:
    if node == NIL:
        return []
    links = state.rb_node[node]
    return [*members(state, links.left), node, *members(state, links.right)]


@given(STEPS)
def test_every_node_knows_the_largest_value_below_it(steps: list[tuple[str, int, int, int]]) -> None:
    state, model = build(steps)
    order, wrong = tree_in_order(state, Tree.STABLE)
    assert wrong == []
    assert sorted(order) == sorted(model)
    assert [model[node][0] for node in order] == sorted(first for first, _ in model.values())
    for node in order:
        assert state.rb_max[node].largest == max(model[below][1] for below in members(state, node))


@given(STEPS, st.integers(0, SPAN), st.integers(0, 30))
def test_a_search_finds_every_interval_that_meets_the_range(
    steps: list[tuple[str, int, int, int]], first: int, length: int
) -> None:
    state, model = build(steps)
    last = first + length
    found = []
    node = interval_first(state, Tree.STABLE, first, last)
    while node != NIL:
        found.append(node)
        node = interval_next(state, node, first, last)
    order, _ = tree_in_order(state, Tree.STABLE)
    assert found == [node for node in order if model[node][0] <= last and model[node][1] >= first]


def test_nodes_of_equal_keys_stand_in_the_order_of_their_insertion() -> None:
    state = empty_trees()
    for node in (7, 3, 9, 1):
        insert_max(state, Tree.STABLE, node, 5, node)
    assert tree_in_order(state, Tree.STABLE) == ([7, 3, 9, 1], [])
