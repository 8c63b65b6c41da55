"""What the checks of invariants share: wording of findings, walks along lists, records that are in use."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from node.pool import Pool
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State

MOST_ALIKE: Final = 3  # findings of one kind that are worded; the others are counted
Ints = npt.NDArray[Any]


def each(indices: Iterable[int] | Ints, say: Callable[[int], str]) -> list[str]:
    """Return one line for each index, or for the first few and one that counts the others."""
    found = [int(index) for index in indices]
    lines = [say(index) for index in found[:MOST_ALIKE]]
    if len(found) > MOST_ALIKE:
        lines[-1] += f" (and {len(found) - MOST_ALIKE} more such)"
    return lines


def differ(name: str, value: int, counted: int, what: str) -> list[str]:
    """Return a line if a counter is not what was counted."""
    return [] if value == counted else [f"{name}: is {value}, but {what}: {counted}"]


def walk_list(first: int, following: list[int], none: int = NIL) -> list[int]:
    """Return the members of a linked list in order; one more than there can be, if it is a circle."""
    members: list[int] = []
    index = first
    while index != none and len(members) <= len(following):
        if not 0 <= index < len(following):
            members.append(index)
            break
        members.append(index)
        index = following[index]
    return members


def linked_list(
    name: str, ends: tuple[int, int], following: list[int], previous: list[int]
) -> tuple[list[int], list[str]]:
    """Return the members of a doubly linked list with these first and last, and what is wrong with it."""
    members = walk_list(ends[0], following)
    if len(members) > len(following):
        return [], [f"{name}: is a circle"]
    if members and not 0 <= members[-1] < len(following):
        return members[:-1], [f"{name}: leads to {members[-1]}, of {len(following)}"]
    wrong = [
        f"{name}: {index} has {previous[index]} before it, not {before}"
        for before, index in zip([NIL, *members], members, strict=False)
        if previous[index] != before
    ]
    if members and ends[1] != members[-1]:
        wrong.append(f"{name}: ends with {members[-1]}, but says {ends[1]}")
    return members, each(range(len(wrong)), wrong.__getitem__)


def used_records(state: "State", which: Pool) -> npt.NDArray[np.bool_]:
    """Return which records of a pool are handed out, for the indices below its mark."""
    pool = state.pool[which]
    links = np.asarray(state.pool_link)[pool.first_link : pool.first_link + pool.mark].tolist()
    used = np.ones(pool.mark, np.bool_)
    used[0] = False
    used[[index for index in walk_list(pool.first_free, links) if 0 <= index < pool.mark]] = False
    return used


def check_pools(state: "State") -> list[str]:
    """Return what is wrong with the pools' free lists and counts."""
    wrong = []
    for which in range(Pool.NR):
        name = Pool(which).name
        pool = state.pool[which]
        links = np.asarray(state.pool_link)[pool.first_link : pool.first_link + pool.mark].tolist()
        free = walk_list(pool.first_free, links)
        if len(set(free)) != len(free) or not all(0 < index < pool.mark for index in free):
            wrong.append(f"pool {name}: its free list is a circle or leads outside 1..{pool.mark - 1}")
        wrong += differ(f"pool {name}.nr_used", pool.nr_used, pool.mark - 1 - len(free), "records handed out")
    return wrong
