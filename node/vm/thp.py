"""Transparent huge pages: which areas get them, and how hard the kernel tries for their memory.

    enabled   always    every anonymous area                  defrag   how a fault's request may wait
              madvise   those that asked (MADV_HUGEPAGE)
              never     none, as if the kernel had no such pages

    defrag           asked for it     did not ask
    always           reclaim          reclaim once
    defer            wake kswapd      wake kswapd
    defer+madvise    reclaim          wake kswapd
    madvise          reclaim          take what is there
    never            take what is there

A huge page fits where its whole 2 MiB, aligned, lie in one area.

The files of this mechanism: node/fault/huge.py (faults), node/vm/huge_pmd.py (entries and their deposited tables),
huge_rmap.py (counts, the deferred queue), huge_split.py (an entry), huge_page_split.py (a page), huge_zero.py,
huge_fork.py, huge_protect.py; node/fault/khugepaged.py and collapse.py make huge pages of small ones.

Linux: mm/huge_memory.c (hugepage_vma_check, vma_thp_gfp_mask), include/linux/huge_mm.h (transhuge_vma_suitable).
# Differs from Linux: only anonymous memory gets huge pages, none of shmem; 32-bit paging has none.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from node.counters import Current, Knob, VmStat
from node.kthread import ASLEEP, Kthread
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE
from shared.gfp_flags import GFP_TRANSHUGE_LIGHT, Gfp
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


class ThpMode(IntEnum):
    """Values of Knob.THP_ENABLED: /sys/kernel/mm/transparent_hugepage/enabled."""

    NEVER = 0
    MADVISE = 1
    ALWAYS = 2


class ThpDefrag(IntEnum):
    """Values of Knob.THP_DEFRAG: /sys/kernel/mm/transparent_hugepage/defrag."""

    NEVER = 0
    MADVISE = 1
    DEFER_MADVISE = 2
    DEFER = 3
    ALWAYS = 4


@kernel
def huge_pages_exist(state: "State") -> int:
    """Return whether some entry of the machine may map a transparent huge page."""
    return (
        1
        if state.vm_stat[VmStat.NR_ANON_TRANSPARENT_HUGEPAGES] or state.current[Current.HUGE_ZERO_USERS]
        else 0
    )


@kernel
def may_meet_huge(state: "State") -> int:
    """Return whether a fault without a table of the last level has to think of huge pages."""
    return 1 if state.knob[Knob.THP_ENABLED] != ThpMode.NEVER or huge_pages_exist(state) else 0


@kernel
def area_may_have_huge(state: "State", vma_index: int) -> int:
    """Return whether huge pages may serve an area (hugepage_vma_check)."""
    vma = state.vma[vma_index]
    refused = VmFlag.NOHUGEPAGE | VmFlag.HUGETLB | VmFlag.DONTEXPAND
    if vma.inode or vma.vm_flags & refused or 1 << state.knob[Knob.TABLE_SHIFT] != ENTRIES_PER_TABLE:
        return 0
    mode = state.knob[Knob.THP_ENABLED]
    return 1 if mode == ThpMode.ALWAYS or (mode == ThpMode.MADVISE and vma.vm_flags & VmFlag.HUGEPAGE) else 0


@kernel
def huge_fits(state: "State", vma_index: int, vaddr: int) -> int:
    """Return whether the 2 MiB around ``vaddr`` lie in the area (transhuge_vma_suitable)."""
    vma = state.vma[vma_index]
    start = vaddr & ~(HUGE_PAGE_SIZE - 1)
    return 1 if vma.start <= start and start + HUGE_PAGE_SIZE <= vma.end else 0


@kernel
def thp_gfp_mask(state: "State", vma_index: int) -> int:
    """Return the Gfp bits of a fault's request for a huge page (vma_thp_gfp_mask)."""
    asked = state.vma[vma_index].vm_flags & VmFlag.HUGEPAGE
    defrag = state.knob[Knob.THP_DEFRAG]
    if defrag == ThpDefrag.ALWAYS:
        return GFP_TRANSHUGE_LIGHT | Gfp.DIRECT_RECLAIM | (0 if asked else Gfp.NORETRY)
    if defrag == ThpDefrag.DEFER:
        return GFP_TRANSHUGE_LIGHT | Gfp.KSWAPD_RECLAIM
    if defrag == ThpDefrag.DEFER_MADVISE:
        return GFP_TRANSHUGE_LIGHT | (Gfp.DIRECT_RECLAIM if asked else Gfp.KSWAPD_RECLAIM)
    if defrag == ThpDefrag.MADVISE and asked:
        return GFP_TRANSHUGE_LIGHT | Gfp.DIRECT_RECLAIM
    return GFP_TRANSHUGE_LIGHT


@kernel
def khugepaged_enter(state: "State", vma_index: int) -> None:
    """Let khugepaged scan an address space from now on; it begins at once if it had nothing to do."""
    mm = state.mm[state.vma[vma_index].mm]
    if mm.hugepage:
        return
    mm.hugepage = 1
    thread = state.kthread[Kthread.KHUGEPAGED]
    if thread.clock_ps == ASLEEP:
        thread.clock_ps = state.current[Current.CLOCK_PS]
