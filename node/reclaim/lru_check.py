"""What must hold of the LRU lists when no kernel runs: every pageable page is on one, once, unless it is isolated."""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import VmStat
from node.findings import differ, each, linked_list
from node.phys.page import PageFlag
from node.reclaim.lru import LruList
from shared.constants import ENTRIES_PER_TABLE

if TYPE_CHECKING:
    from node.state import State


_TELLING: Final = PageFlag.LRU | PageFlag.ACTIVE | PageFlag.UNEVICTABLE
_FLAGS: Final = {
    LruList.INACTIVE_ANON: PageFlag.LRU,
    LruList.ACTIVE_ANON: PageFlag.LRU | PageFlag.ACTIVE,
    LruList.INACTIVE_FILE: PageFlag.LRU,
    LruList.ACTIVE_FILE: PageFlag.LRU | PageFlag.ACTIVE,
    LruList.UNEVICTABLE: PageFlag.LRU | PageFlag.UNEVICTABLE,
}


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
        nr_pages = len(members) + int((page_flags[pfns] & PageFlag.HUGE != 0).sum()) * (ENTRIES_PER_TABLE - 1)
        wrong += differ(f"{name}.nr_pages", lru.nr_pages, nr_pages, "frames on it")
        wrong += differ(
            f"NR_{which.name}",
            state.vm_stat[VmStat.NR_INACTIVE_ANON + which],
            nr_pages,
            "frames on the list",
        )
        wrong += each(
            pfns[page_flags[pfns] & _TELLING != _FLAGS[which]],
            f"{name}: frame {{}} is not flagged so".format,
        )
        np.add.at(on_lists, pfns, 1)
    if wrong:
        return wrong
    pageable = (page_flags & (PageFlag.SWAPCACHE | PageFlag.CACHED) != 0) | (state.page["mapcount"] > 0)
    pageable |= (page_flags & PageFlag.HUGE != 0) & (state.page["refcount"] > 0)
    in_huge = (page_flags & PageFlag.HUGE != 0) & (state.page["head"] != np.arange(len(page_flags)))
    pageable &= ~in_huge
    pageable &= page_flags & PageFlag.ISOLATED == 0
    wrong += each(
        np.flatnonzero(pageable & (on_lists == 0)),
        lambda pfn: f"frame {pfn}: is pageable, but on no LRU list",
    )
    stray = (on_lists != 0) & ~pageable | (page_flags & PageFlag.LRU != 0) & (on_lists == 0)
    return wrong + each(
        np.flatnonzero(stray), lambda pfn: f"frame {pfn}: is on an LRU list or flagged so, without cause"
    )
