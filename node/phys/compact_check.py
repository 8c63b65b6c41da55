"""What must hold of compaction whenever a kernel may be stopped, also in the middle of a zone.

- every isolated frame is on the list of one compactor: of pages to move if it is a page's, else of free frames
- what the lists hold is what is counted
- what is remembered of failures is in range
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmStat
from node.findings import Ints, differ, each, walk_list
from node.phys.compact_control import NR_COMPACTORS, Compactor
from node.phys.compact_defer import COMPACT_MAX_DEFER_SHIFT
from node.phys.frames_check import zone_name
from node.phys.page import PageFlag

if TYPE_CHECKING:
    from node.state import State


def check_compaction(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with what compaction holds and remembers."""
    return _check_lists(state) + _check_zones(state)


def _members(state: "State", name: str, first: int, nr_frames: int) -> tuple[list[int], list[str]]:
    if nr_frames == 0:
        return [], []
    following = state.page["next"].tolist()
    members = walk_list(first, following)
    return members, differ(name, nr_frames, len(members), "frames on the list")


def _check_lists(state: "State") -> list[str]:
    page_flags = np.asarray(state.page["page_flags"])
    isolated = page_flags & PageFlag.ISOLATED != 0
    is_page = isolated & ((np.asarray(state.page["mapcount"]) > 0) | (page_flags & PageFlag.SWAPCACHE != 0))
    wrong: list[str] = []
    pages: list[int] = []
    free: list[int] = []
    for which in range(NR_COMPACTORS):
        control = state.compact_control[which]
        name = f"compaction, {Compactor(which).name}"
        members, broken = _members(
            state, f"{name}.nr_migratepages", control.first_migratepage, control.nr_migratepages
        )
        pages += members
        wrong += broken
        members, broken = _members(
            state, f"{name}.nr_freepages", control.first_freepage, control.nr_freepages
        )
        free += members
        wrong += broken
    wrong += differ("NR_ISOLATED", state.vm_stat[VmStat.NR_ISOLATED], int(is_page.sum()), "pages isolated")
    wrong += _stray(pages, np.flatnonzero(is_page), "of pages to move")
    return wrong + _stray(free, np.flatnonzero(isolated & ~is_page), "of free frames")


def _stray(listed: list[int], flagged: Ints, which: str) -> list[str]:
    return each(
        sorted(set(listed) ^ set(flagged.tolist())),
        lambda pfn: f"frame {pfn}: is isolated or on a compactor's list {which}, not both",
    )


def _check_zones(state: "State") -> list[str]:
    wrong: list[str] = []
    for index in range(len(state.zone)):
        zone = state.zone[index]
        if not 0 <= zone.compact_defer_shift <= COMPACT_MAX_DEFER_SHIFT:
            wrong.append(f"zone {zone_name(state, index)}.compact_defer_shift: is {zone.compact_defer_shift}")
        if not 0 <= zone.compact_considered <= 1 << COMPACT_MAX_DEFER_SHIFT:
            wrong.append(f"zone {zone_name(state, index)}.compact_considered: is {zone.compact_considered}")
    return wrong
