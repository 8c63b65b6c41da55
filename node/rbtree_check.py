"""What must hold of a red-black tree: links, colours, and as many black nodes on every way down."""

from typing import TYPE_CHECKING

from node.rbtree import Color, Tree
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State


def tree_in_order(state: "State", tree: int, name: str = "") -> tuple[list[int], list[str]]:
    """Return a tree's nodes from left to right, and one line for each thing that is wrong with its shape."""
    name = name or f"{Tree(tree).name} tree"
    root = int(state.rb_root[tree])
    if root == NIL:
        return [], []
    if not 0 <= root < len(state.rb_node):
        return [], [f"{name}: its root is {root}, of {len(state.rb_node)} nodes"]
    wrong = []
    if state.rb_node[root].parent != NIL or state.rb_node[root].color != Color.BLACK:
        wrong.append(f"{name}: its root {root} is red or has a parent")
    order: list[int] = []
    blacks: set[int] = set()  # of every way down
    seen: set[int] = set()
    todo = [(root, NIL, 0, False)]  # node, its parent, black nodes above, whether its left side is done
    while todo:
        index, parent, above, left_done = todo.pop()
        if index == NIL:
            blacks.add(above)
            continue
        node = state.rb_node[index]
        below = above + (node.color == Color.BLACK)
        if left_done:
            order.append(index)
            todo.append((node.right, index, below, False))
            continue
        if index in seen or not all(
            child == NIL or 0 <= child < len(state.rb_node) for child in (node.left, node.right)
        ):
            return order, [*wrong, f"{name}: node {index} is in it twice, or leads outside"]
        seen.add(index)
        if node.parent != parent:
            wrong.append(f"{name}: node {index} says that {node.parent} is its parent, not {parent}")
        if node.color == Color.RED and parent != NIL and state.rb_node[parent].color == Color.RED:
            wrong.append(f"{name}: red node {index} has a red parent {parent}")
        todo += [(index, parent, above, True), (node.left, index, below, False)]
    if len(blacks) != 1:
        wrong.append(f"{name}: ways down have {sorted(blacks)} black nodes")
    return order, wrong
