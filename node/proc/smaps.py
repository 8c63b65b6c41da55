"""/proc/PID/smaps and smaps_rollup: what of each area is in memory, whose it is, and how much of it is this process's.

    Rss    pages that are mapped; Pss   each divided by how many map it
    Shared_, Private_      mapped by several or by one;  _Dirty by the entry or the page, else _Clean
    Swap   pages in swap;  SwapPss      each divided by how many entries lead to it

The page of zeroes is no page here. Huge pages of hugetlbfs count in Shared_Hugetlb and Private_Hugetlb alone.

Linux: fs/proc/task_mmu.c (smaps_pte_entry, smaps_pmd_entry, smaps_account, smaps_hugetlb_range, __show_smap,
show_smap_vma_flags), arch/x86/mm/pgtable.c (young and dirty of an entry).
# Differs from Linux: no page of shared memory is in swap; no area is without VM_MAYREAD, VM_MAYWRITE or VM_MAYEXEC; no
line ProtectionKey.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.findings import Ints
from node.hw.pte import Pte
from node.phys.page import PageFlag
from node.proc.areas import Area, Names, areas_of
from node.proc.kpageflags import mapcounts
from node.proc.process_pages import ProcessPages, process_pages
from node.vm.vma import VmFlag
from shared.constants import HUGE_PAGE_SIZE, KIB, PAGE_KIB, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

PSS_SHIFT: Final = 12  # binary places of a share of a page
PAGE_SHARE: Final = PAGE_SIZE << PSS_SHIFT
SHARES_PER_KIB_SHIFT: Final = 10 + PSS_SHIFT
NOT_ELIGIBLE: Final = "THPeligible:    0\n"  # as where transparent huge pages are off
NAME_WIDTH: Final = 16
LINE_WIDTH: Final = 24
Sizes = dict[str, Ints]  # [area] KiB by name, shares of a page rounded down last

_ROLLUP_ONLY: Final = ("Pss_Anon", "Pss_File", "Pss_Shmem")
_SHARES: Final = ("Pss", "Pss_Dirty", *_ROLLUP_ONLY, "SwapPss", "Locked")
LINES: Final = (
    *("Rss", "Pss", "Pss_Dirty", *_ROLLUP_ONLY, "Shared_Clean", "Shared_Dirty", "Private_Clean"),
    *("Private_Dirty", "Referenced", "Anonymous", "LazyFree", "AnonHugePages", "ShmemPmdMapped"),
    *("FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked"),
)
# VmFlags' letters, by the number of the bit of vm_flags. Those that follow from what is always so are None; a bit that
# Linux has no letters for is ??.
_LETTERS: Final = (
    ("rd", VmFlag.READ),
    ("wr", VmFlag.WRITE),
    ("ex", VmFlag.EXEC),
    ("sh", VmFlag.SHARED),
    ("mr", None),
    ("mw", None),
    ("me", None),
    ("ms", VmFlag.SHARED),
    ("gd", VmFlag.GROWSDOWN),
    ("lo", VmFlag.LOCKED),
    ("sr", VmFlag.SEQ_READ),
    ("rr", VmFlag.RAND_READ),
    ("dc", VmFlag.DONTCOPY),
    ("de", VmFlag.DONTEXPAND),
    ("??", VmFlag.LOCKONFAULT),
    ("ac", VmFlag.ACCOUNT),
    ("nr", VmFlag.NORESERVE),
    ("ht", VmFlag.HUGETLB),
    ("sd", None),
    ("hg", VmFlag.HUGEPAGE),
    ("nh", VmFlag.NOHUGEPAGE),
    ("mg", VmFlag.MERGEABLE),
)


def smaps(state: "State", mm_index: int, names: Names) -> str:
    """Return the text of /proc/PID/smaps."""
    areas = areas_of(state, mm_index, names)
    sizes = area_sizes(state, mm_index, areas)
    text = []
    for index, area in enumerate(areas):
        page_kib = (HUGE_PAGE_SIZE if area.vm_flags & VmFlag.HUGETLB else PAGE_SIZE) // KIB
        own = {name: int(values[index]) for name, values in sizes.items() if name not in _ROLLUP_ONLY}
        first = {"Size": (area.end - area.start) // KIB, "KernelPageSize": page_kib, "MMUPageSize": page_kib}
        text += [area.line(), _lines(first), _lines(own), NOT_ELIGIBLE, _flags_line(area.vm_flags)]
    return "".join(text)


def smaps_rollup(state: "State", mm_index: int, names: Names) -> str:
    """Return the text of /proc/PID/smaps_rollup."""
    areas = areas_of(state, mm_index, names)
    span = (
        Area(areas[0].start, areas[-1].end, 0, name="[rollup]") if areas else Area(0, 0, 0, name="[rollup]")
    )
    return span.line() + _lines(rollup(state, mm_index))


def rollup(state: "State", mm_index: int) -> dict[str, int]:
    """Return the lines of /proc/PID/smaps_rollup in KiB by name."""
    areas = areas_of(state, mm_index, Names())
    return {name: int(values[0]) for name, values in _sizes(state, mm_index, areas, summed=True).items()}


def area_sizes(state: "State", mm_index: int, areas: list[Area]) -> Sizes:
    """Return the lines of each area, those of smaps_rollup included, in KiB."""
    return _sizes(state, mm_index, areas, summed=False)


def _sizes(state: "State", mm_index: int, areas: list[Area], *, summed: bool) -> Sizes:
    pages = process_pages(state, mm_index)
    starts = np.array([area.start >> PAGE_SHIFT for area in areas], np.int64)
    area_flags = np.array([area.vm_flags for area in areas], np.int64)
    area = np.searchsorted(starts, pages.vpn, side="right") - 1
    nr_rows = 1 if summed else len(areas)
    row = np.zeros(len(area), np.int64) if summed else area
    sizes: Sizes = {}
    for name, amounts in _amounts(state, pages, area_flags[area]).items():
        # Sums stay far below 2^53, so that floats hold them exactly: 2^29 pages of 2^24 shares each.
        total = np.bincount(row, weights=amounts, minlength=nr_rows).astype(np.int64)
        sizes[name] = total >> SHARES_PER_KIB_SHIFT if name in _SHARES else total * PAGE_KIB
    return {name: sizes[name] for name in LINES}


def _amounts(state: "State", pages: ProcessPages, area_flags: Ints) -> Sizes:
    """Return of each page what it adds to each line: pages, or shares of one."""
    frames = np.asarray(state.page)
    flags = frames["page_flags"][pages.pfn].astype(np.int64)
    head = frames["head"][pages.pfn].astype(np.int64)
    is_tail = ((flags & PageFlag.HUGE) != 0) & (head != 0)
    flags[is_tail] = frames["page_flags"][head[is_tail]]
    hugetlb = pages.present & ((flags & PageFlag.HUGETLB) != 0)
    mapped = pages.present & ~pages.zero & ~hugetlb
    counts = mapcounts(state, pages.pfn)
    shared = counts > 1
    anon = mapped & ((flags & (PageFlag.ANON | PageFlag.KSM)) != 0)
    swapbacked = (flags & PageFlag.SWAPBACKED) != 0
    shmem = mapped & ~anon & swapbacked
    page_dirty = (flags & PageFlag.DIRTY) != 0
    dirty = ((pages.pte & Pte.DIRTY) != 0) | page_dirty
    young = ((pages.pte & Pte.ACCESSED) != 0) | ((flags & PageFlag.REFERENCED) != 0)
    share = np.where(mapped, PAGE_SHARE // np.maximum(counts, 1), 0)
    swapped = ~pages.present
    users = np.asarray(state.swap_slot)["nr_users"][pages.slot].astype(np.int64)
    return {
        "Rss": mapped,
        "Pss": share,
        "Pss_Dirty": share * dirty,
        "Pss_Anon": share * anon,
        "Pss_File": share * (mapped & ~anon & ~shmem),
        "Pss_Shmem": share * shmem,
        "Shared_Clean": mapped & shared & ~dirty,
        "Shared_Dirty": mapped & shared & dirty,
        "Private_Clean": mapped & ~shared & ~dirty,
        "Private_Dirty": mapped & ~shared & dirty,
        "Referenced": mapped & young,
        "Anonymous": anon,
        "LazyFree": anon & ~swapbacked & ~dirty,
        "AnonHugePages": anon & pages.large,
        "ShmemPmdMapped": shmem & pages.large,
        "FilePmdMapped": mapped & ~anon & ~shmem & pages.large,
        "Shared_Hugetlb": hugetlb & shared,
        "Private_Hugetlb": hugetlb & ~shared,
        "Swap": swapped,
        "SwapPss": np.where(swapped, PAGE_SHARE // np.maximum(users, 1), 0),
        "Locked": share * ((area_flags & VmFlag.LOCKED) != 0),
    }


def _lines(values: dict[str, int]) -> str:
    """Return lines of 24 characters before the unit; a long name takes from the number's room."""
    text = []
    for name, value in values.items():
        start = f"{name}: ".ljust(NAME_WIDTH)
        text.append(f"{start}{value:>{LINE_WIDTH - len(start)}} kB\n")
    return "".join(text)


def _flags_line(vm_flags: int) -> str:
    named = (letters for letters, flag in _LETTERS if flag is None or vm_flags & flag)
    return f"VmFlags: {' '.join(named)} \n"
