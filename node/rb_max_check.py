"""What must hold of a tree whose nodes know the largest value below them: order, members, values, and the largest."""

from typing import TYPE_CHECKING

from node.findings import each
from node.rbtree_check import tree_in_order
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State


def _check_largest(state: "State", name: str, order: list[int]) -> list[str]:
    """Check of every node of a tree that it knows the largest value below it."""

    def largest(node: int) -> int:
        if node == NIL:
            return NIL
        links = state.rb_node[node]
        return max(int(state.rb_max[node].own), found.get(links.left, NIL), found.get(links.right, NIL))

    found: dict[int, int] = {}
    for node in sorted(order, key=lambda node: -_depth(state, node)):
        found[node] = largest(node)
    return each(
        [node for node in order if state.rb_max[node].largest != found[node]],
        lambda node: f"{name}: node {node}.largest: is {state.rb_max[node].largest}, not {found[node]}",
    )


def _depth(state: "State", node: int) -> int:
    depth = 0
    while node != NIL:
        node = int(state.rb_node[node].parent)
        depth += 1
    return depth


def check_tree(state: "State", name: str, tree: int, expected: dict[int, tuple[int, int]]) -> list[str]:
    """Check that a tree has these nodes, with these keys and values of their own."""
    order, wrong = tree_in_order(state, tree, name)
    if wrong:
        return wrong
    if set(order) != set(expected):
        odd = sorted(set(order) ^ set(expected))
        return [f"{name}: node {odd[0]} is in it and should not be, or is not and should"]
    found = [(int(state.rb_node[node].key), int(state.rb_max[node].own)) for node in order]
    if sorted(key for key, _ in found) != [key for key, _ in found]:
        wrong.append(f"{name}: is not in order")
    wrong += [
        f"{name}: node {node} has {has} as key and own, not {expected[node]}"
        for node, has in zip(order, found, strict=True)
        if has != expected[node]
    ]
    return wrong + _check_largest(state, name, order)
