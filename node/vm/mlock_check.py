"""What must hold of locked memory when no kernel runs: a page is locked if, and only if, a locked area maps it."""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmStat
from node.findings import Ints, differ, each, used_records
from node.phys.page import PageFlag
from node.pool import Pool
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State
    from node.vm.mappings import Mappings


def check_mlock(state: "State", mappings: "Mappings", place_of: Ints, large_place_of: Ints) -> list[str]:
    """Return one line for each thing that is wrong with locked pages.

    ``place_of`` has the area of each entry of the last level, ``large_place_of`` that of each entry above it.
    """
    page_flags = np.asarray(state.page["page_flags"])
    locked = page_flags & PageFlag.MLOCKED != 0
    in_locked_area = state.vma["vm_flags"][place_of] & VmFlag.LOCKED != 0
    never = PageFlag.ZERO_PAGE | PageFlag.HUGE | PageFlag.HUGETLB
    holding = mappings.present & in_locked_area & (page_flags[mappings.pfn * mappings.present] & never == 0)
    nr_holding = np.bincount(mappings.pfn[holding], minlength=len(page_flags))
    heads = mappings.huge_heads
    holding = (state.vma["vm_flags"][large_place_of] & VmFlag.LOCKED != 0) & (
        page_flags[heads] & PageFlag.HUGE != 0
    )
    nr_holding += np.bincount(heads[holding], minlength=len(page_flags))
    sizes = np.where(page_flags[locked] & PageFlag.HUGE, ENTRIES_PER_TABLE, 1)
    wrong = differ("NR_MLOCK", state.vm_stat[VmStat.NR_MLOCK], int(sizes.sum()), "frames flagged MLOCKED")
    wrong += each(
        np.flatnonzero(~locked & (nr_holding > 0)),
        lambda pfn: f"frame {pfn}: is in a locked area, but not MLOCKED",
    )
    wrong += each(
        np.flatnonzero(locked & (nr_holding == 0)),
        lambda pfn: f"frame {pfn}: is MLOCKED, but in no locked area",
    )
    on_list = page_flags & PageFlag.LRU != 0
    wrong += each(
        np.flatnonzero(locked & on_list & (page_flags & PageFlag.UNEVICTABLE == 0)),
        lambda pfn: f"frame {pfn}: is MLOCKED, but on a list that reclaim looks at",
    )
    return wrong + _check_sizes(state)


def _check_sizes(state: "State") -> list[str]:
    used = used_records(state, Pool.VMA)
    areas = np.asarray(state.vma)[: len(used)][used]
    areas = areas[areas["vm_flags"] & VmFlag.LOCKED != 0]
    mark = int(state.pool[Pool.MM].mark)
    pages = (areas["end"] - areas["start"]) >> PAGE_SHIFT
    locked_vm = np.bincount(areas["mm"], weights=pages, minlength=mark).astype(np.int64)
    counted = np.where(np.asarray(state.mm["alive"][:mark]) != 0, state.mm["locked_vm"][:mark], locked_vm)
    return each(
        np.flatnonzero(counted != locked_vm),
        lambda mm: f"mm {mm}.locked_vm: is {counted[mm]}, but pages of locked areas: {locked_vm[mm]}",
    )
