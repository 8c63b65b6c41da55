"""/proc/meminfo: where the memory is, in KiB.

    MemTotal:         468404 kB      frames that the buddy system has or has handed out
    MemFree:          432052 kB
    MemAvailable:     432652 kB      free above the reserves, and half of what can be reclaimed at once
    ...

Every line of Debian's amd64 kernel is there, in its order. What is not modelled is 0, as on a machine that has
no file, no huge page and no zswap.

Linux: fs/proc/meminfo.c (meminfo_proc_show), mm/page_alloc.c (si_mem_available, calculate_totalreserve_pages),
mm/util.c (vm_commit_limit), mm/hugetlb.c (hugetlb_report_meminfo), arch/x86/mm/pat/set_memory.c
(arch_report_meminfo).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from node.counters import Knob, VmStat
from node.phys.zone import ZoneId
from node.proc.direct_map import direct_map_kib
from node.proc.stats import machine_items
from node.proc.zones import KINDS_32, ZoneView, populated_zones, zone_kinds
from node.vm.commit import SWAP_HEADER_PAGES
from shared.constants import KIB, PAGE_KIB

if TYPE_CHECKING:
    from node.state import State

MODELLED: Final = (
    *("MemTotal", "MemFree", "SwapTotal", "SwapFree", "SwapCached", "Active", "Inactive"),
    *("Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable", "Mlocked"),
    *("AnonPages", "PageTables", "CommitLimit", "Committed_AS"),
)
_PERCENT: Final = 100
_WIDTH: Final = 16  # of name and colon
_DIGITS: Final = 8
_HUGE_WIDTH: Final = 19  # of name and colon of a line that counts huge pages
_NARROW: Final = {"HardwareCorrupted": 5}  # lines of another width of digits
_HUGE_COUNTS: Final = ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp")


def meminfo(state: "State") -> str:
    """Return the text of /proc/meminfo."""
    lines = [_line(name, pages * PAGE_KIB) for name, pages in _levels(state).items()]
    lines += [_line(name, kib) for name, kib in _vmalloc_and_huge(state).items()]
    nr_levels = int(state.knob[Knob.NR_LEVELS])
    if nr_levels > 1:
        # The pool of huge pages (hugetlb) is empty; a trace's huge pages are no part of it.
        huge_kib = (1 << int(state.paging_level[nr_levels - 2].shift)) // KIB
        lines += [f"{name + ':':<{_HUGE_WIDTH}}{0:5d}\n" for name in _HUGE_COUNTS]
        lines += [_line("Hugepagesize", huge_kib), _line("Hugetlb", 0)]
    lines += [_line(f"DirectMap{size}", kib) for size, kib in direct_map_kib(state).items()]
    return "".join(lines)


def meminfo_kib(state: "State") -> dict[str, int]:
    """Return the lines that are modelled, in KiB, by name."""
    levels = _levels(state)
    return {name: levels[name] * PAGE_KIB for name in MODELLED if name in levels}


def _line(name: str, kib: int) -> str:
    label = f"{name}:"
    if name in _NARROW:
        return f"{label} {kib:{_NARROW[name]}d} kB\n"
    return f"{label:<{_WIDTH}}{kib:{_DIGITS}d} kB\n"


def available_pages(free: int, reclaimable: int, zones: Sequence[ZoneView]) -> int:
    """Return what programs could get without swapping: free memory above the reserves, and what slabs can spare.

    ``free`` and ``reclaimable`` are pages of the whole machine, ``zones`` those that have frames.
    """
    reserved = sum(min(max(zone.protection, default=0) + zone.high, zone.managed) for zone in zones)
    low = sum(zone.low for zone in zones)
    return max(free - reserved + reclaimable - min(reclaimable // 2, low), 0)


def commit_limit_pages(state: "State", total: int, swap: int) -> int:
    """Return what may be promised under Overcommit.NEVER, of ``total`` pages of memory and ``swap`` of swap."""
    kbytes = int(state.knob[Knob.OVERCOMMIT_KBYTES])
    share = kbytes // PAGE_KIB if kbytes else total * int(state.knob[Knob.OVERCOMMIT_RATIO]) // _PERCENT
    return share + swap


def _levels(state: "State") -> dict[str, int]:
    """Return the lines up to Committed_AS, in pages."""
    zones = populated_zones(state)
    items = machine_items(state)
    total = sum(zone.managed for zone in zones)
    swap = max(int(state.swap_area[0].nr_slots) - SWAP_HEADER_PAGES, 0)
    free = int(state.vm_stat[VmStat.NR_FREE_PAGES])
    slab = items["nr_slab_reclaimable"], items["nr_slab_unreclaimable"]
    return {
        "MemTotal": total,
        "MemFree": free,
        "MemAvailable": available_pages(free, slab[0], zones),
        "Buffers": 0,
        "Cached": items["nr_file_pages"] - items["nr_swapcached"],
        "SwapCached": items["nr_swapcached"],
        "Active": items["nr_active_anon"] + items["nr_active_file"],
        "Inactive": items["nr_inactive_anon"] + items["nr_inactive_file"],
        "Active(anon)": items["nr_active_anon"],
        "Inactive(anon)": items["nr_inactive_anon"],
        "Active(file)": items["nr_active_file"],
        "Inactive(file)": items["nr_inactive_file"],
        "Unevictable": items["nr_unevictable"],
        "Mlocked": int(state.vm_stat[VmStat.NR_MLOCK]),
        **_highmem(state, zones),
        "SwapTotal": swap,
        "SwapFree": swap - int(state.vm_stat[VmStat.NR_SWAP_USED]),
        "Zswap": 0,
        "Zswapped": 0,
        "Dirty": items["nr_dirty"],
        "Writeback": items["nr_writeback"],
        "AnonPages": items["nr_anon_pages"],
        "Mapped": items["nr_mapped"],
        "Shmem": items["nr_shmem"],
        "KReclaimable": slab[0] + items["nr_kernel_misc_reclaimable"],
        "Slab": sum(slab),
        "SReclaimable": slab[0],
        "SUnreclaim": slab[1],
        "KernelStack": 0,
        "PageTables": items["nr_page_table_pages"],
        "SecPageTables": items["nr_sec_page_table_pages"],
        "NFS_Unstable": 0,
        "Bounce": 0,
        "WritebackTmp": items["nr_writeback_temp"],
        "CommitLimit": commit_limit_pages(state, total, swap),
        "Committed_AS": max(int(state.vm_stat[VmStat.NR_COMMITTED]), 0),
    }


def _highmem(state: "State", zones: Sequence[ZoneView]) -> dict[str, int]:
    """Return the lines that only a 32-bit kernel has, in pages."""
    if zone_kinds(state) != KINDS_32:
        return {}
    high = [zone for zone in zones if zone.kind == ZoneId.HIGHMEM]
    low = [zone for zone in zones if zone.kind != ZoneId.HIGHMEM]
    return {
        "HighTotal": sum(zone.managed for zone in high),
        "HighFree": sum(zone.free for zone in high),
        "LowTotal": sum(zone.managed for zone in low),
        "LowFree": sum(zone.free for zone in low),
    }


def _vmalloc_and_huge(state: "State") -> dict[str, int]:
    """Return the lines from VmallocTotal to FilePmdMapped, in KiB."""
    span = int(state.knob[Knob.VMALLOC_LAST]) - int(state.knob[Knob.VMALLOC_START])
    return {
        "VmallocTotal": span // KIB,
        "VmallocUsed": int(state.vm_stat[VmStat.NR_VMALLOC]) * PAGE_KIB,
        "VmallocChunk": 0,
        "Percpu": 0,
        "HardwareCorrupted": 0,
        "AnonHugePages": 0,
        "ShmemHugePages": 0,
        "ShmemPmdMapped": 0,
        "FileHugePages": 0,
        "FilePmdMapped": 0,
    }
