"""What must hold of the LRU lists when no kernel runs: every anonymous page is on one, once, unless it is isolated."""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmStat
from node.findings import differ, each, linked_list
from node.phys.page import PageFlag
from node.reclaim.lru import LruList

if TYPE_CHECKING:
    from node.state import State


def check_lru(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with the LRU lists."""
    page_flags = state.page["page_flags"]
    following = state.page["next"].tolist()
    previous = state.page["prev"].tolist()
    on_lists = np.zeros(len(page_flags), np.int64)
    wrong: list[str] = []
    for which in LruList:
        name = f"lru {which.name}"
        lru = state.lru[which]
        members, broken = (
            linked_list(name, (lru.first, lru.last), following, previous) if lru.nr_pages else ([], [])
        )
        wrong += broken
        if broken:
            continue
        pfns = np.array(members, np.int64)
        wrong += differ(f"{name}.nr_pages", lru.nr_pages, len(members), "frames on it")
        wrong += differ(
            f"NR_{which.name}",
            state.vm_stat[VmStat.NR_INACTIVE_ANON + which],
            len(members),
            "frames on the list",
        )
        active = PageFlag.ACTIVE if which == LruList.ACTIVE_ANON else 0
        wrong += each(
            pfns[page_flags[pfns] & (PageFlag.LRU | PageFlag.ACTIVE) != PageFlag.LRU | active],
            f"{name}: frame {{}} is not flagged so".format,
        )
        np.add.at(on_lists, pfns, 1)
    if wrong:
        return wrong
    pageable = (page_flags & PageFlag.SWAPCACHE != 0) | (state.page["mapcount"] > 0)
    pageable &= page_flags & PageFlag.ISOLATED == 0
    wrong += each(
        np.flatnonzero(pageable & (on_lists == 0)),
        lambda pfn: f"frame {pfn}: is anonymous, but on no LRU list",
    )
    stray = (on_lists != 0) & ~pageable | (page_flags & PageFlag.LRU != 0) & (on_lists == 0)
    return wrong + each(
        np.flatnonzero(stray), lambda pfn: f"frame {pfn}: is on an LRU list or flagged so, without cause"
    )
