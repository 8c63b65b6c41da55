"""What a machine's counters are called, by Linux's names, and what /proc says of its processes and mappings."""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob, KsmStat, VmEvent, VmStat
from node.hw.pte import PFN_MASK, Pte
from node.phys.page import PageFlag
from node.pool import Pool
from node.vm.mappings import mappings_of
from shared.constants import ENTRIES_PER_TABLE, PAGE_KIB, PAGE_SHIFT

if TYPE_CHECKING:
    from typing import Any

    from node.state import State

    Words = np.ndarray[Any, np.dtype[np.int64]]

BYTES_OF_RMAP_ITEM: Final = 64  # sizeof(struct ksm_rmap_item) on x86-64, in general_profit


def vmstat(state: "State") -> dict[str, int]:
    """Return /proc/vmstat: levels in pages, then events since boot."""
    values = {stat.name.lower(): int(state.vm_stat[stat]) for stat in VmStat if stat is not VmStat.NR}
    for event in VmEvent:
        if event is not VmEvent.NR:
            values[event.name.lower()] = int(state.vm_event[event])
    zones = np.asarray(state.zone)
    for name in ("numa_hit", "numa_miss", "numa_foreign", "numa_other"):
        values[name] = int(zones[name].sum())
    values["numa_local"] = values["numa_hit"] + values["numa_miss"] - values["numa_other"]
    return values


def ksm(state: "State") -> dict[str, int]:
    """Return the files of /sys/kernel/mm/ksm, and the later kernels' pages_scanned and so on."""
    stat = {member: int(state.ksm_stat[member]) for member in KsmStat if member is not KsmStat.NR}
    shared = stat[KsmStat.PAGES_SHARED]
    sharing = stat[KsmStat.PAGES_SHARING]
    unshared = stat[KsmStat.PAGES_UNSHARED]
    items = stat[KsmStat.RMAP_ITEMS]
    return {
        "run": int(state.knob[Knob.KSM_RUN]),
        "pages_to_scan": int(state.knob[Knob.KSM_PAGES_TO_SCAN]),
        "sleep_millisecs": int(state.knob[Knob.KSM_SLEEP_MILLISECS]),
        "max_page_sharing": int(state.knob[Knob.KSM_MAX_PAGE_SHARING]),
        "use_zero_pages": int(state.knob[Knob.KSM_USE_ZERO_PAGES]),
        "merge_across_nodes": int(state.knob[Knob.KSM_MERGE_ACROSS_NODES]),
        "stable_node_chains_prune_millisecs": int(state.knob[Knob.KSM_PRUNE_MILLISECS]),
        "pages_shared": shared,
        "pages_sharing": sharing,
        "pages_unshared": unshared,
        "pages_volatile": max(items - shared - sharing - unshared, 0),
        "full_scans": int(state.ksm_scan[0].seqnr),
        "stable_node_chains": stat[KsmStat.STABLE_NODE_CHAINS],
        "stable_node_dups": stat[KsmStat.STABLE_NODE_DUPS],
        "smart_scan": int(state.knob[Knob.KSM_SMART_SCAN]),
        "pages_scanned": stat[KsmStat.PAGES_SCANNED],
        "pages_skipped": stat[KsmStat.PAGES_SKIPPED],
        "ksm_zero_pages": stat[KsmStat.KSM_ZERO_PAGES],
        "general_profit": (sharing + stat[KsmStat.KSM_ZERO_PAGES]) * ENTRIES_PER_TABLE * 8
        - items * BYTES_OF_RMAP_ITEM,
    }


def sharing_zero(state: "State") -> int:
    """Return how many of pages_sharing share a page of zeroes."""
    mark = state.pool[Pool.STABLE_NODE].mark
    nodes = np.asarray(state.stable_node)[:mark]
    zero = (nodes["key"] == 0) & (nodes["nr_sharers"] > 1)
    pfn = nodes["pfn"]
    live = zero & (pfn > 0)
    pages = np.asarray(state.page)
    index = np.nonzero(live)[0]
    owned = pages["mapping"][pfn[index]] == index
    owned &= (pages["page_flags"][pfn[index]] & PageFlag.KSM) != 0
    return int((nodes["nr_sharers"][index[owned]] - 1).sum())


def leaf_entries(state: "State", mm_index: int) -> "tuple[Words, Words]":
    """Return the virtual page numbers and the entries, present or swapped, of an address space, ascending.

    An entry that maps a huge page stands for 512.
    """
    mappings = mappings_of(state, np.array([mm_index], np.int64))
    if not len(mappings.large_pte):
        return mappings.vpn, mappings.pte
    number = np.arange(ENTRIES_PER_TABLE)
    vpn = np.concatenate([mappings.vpn, (mappings.large_vpn[:, None] + number).ravel()])
    pte = (mappings.large_pte & ~Pte.HUGE)[:, None] + (number << PAGE_SHIFT)
    order = np.argsort(vpn, kind="stable")
    return vpn[order], np.concatenate([mappings.pte, pte.ravel()])[order]


def nr_huge_mappings(state: "State", mm_index: int) -> int:
    """Return how many transparent huge pages an address space maps whole, the page of zeroes aside."""
    heads = mappings_of(state, np.array([mm_index], np.int64)).huge_heads
    return int(np.count_nonzero(state.page["page_flags"][heads] & PageFlag.HUGE))


def mapping_pages(state: "State", mm_index: int, start: int, end: int) -> dict[str, int]:
    """Return how the pages of [start, end) of an address space stand, as /proc/PID/pagemap and kpageflags say."""
    vpn, entries = leaf_entries(state, mm_index)
    inside = (vpn >= start >> PAGE_SHIFT) & (vpn < end >> PAGE_SHIFT)
    entries = entries[inside]
    present = entries[(entries & Pte.PRESENT) != 0]
    pages = np.asarray(state.page)[(present >> PAGE_SHIFT) & PFN_MASK]
    flags = pages["page_flags"]
    zero = (flags & PageFlag.ZERO_PAGE) != 0
    pfn = (present >> PAGE_SHIFT) & PFN_MASK
    zero_head = int(state.current[Current.HUGE_ZERO_PFN])
    huge_zero = zero & (pfn >= zero_head) & (pfn < zero_head + ENTRIES_PER_TABLE) & (zero_head != 0)
    huge = (flags & PageFlag.HUGE) != 0
    heads = np.asarray(state.page)[np.where(huge, pages["head"], 0)]
    whole = np.where(
        heads["page_flags"] & PageFlag.DOUBLE_MAP, heads["huge_mapcount"] - 1, heads["huge_mapcount"]
    )
    mapcount = pages["mapcount"] + np.where(huge, whole, 0)
    in_tail = huge & (pages["head"] != pfn)  # whose own flags in kpageflags are few

    def flagged(flag: PageFlag) -> int:
        return int(np.count_nonzero(flags & flag))

    return {
        "pages": (end - start) >> PAGE_SHIFT,
        "present": len(present),
        "swapped": len(entries) - len(present),
        "exclusive": int(np.count_nonzero((mapcount == 1) & ~zero)),
        "ksm": flagged(PageFlag.KSM),
        "zero_page": int(np.count_nonzero(zero)),
        "anon": flagged(PageFlag.ANON),
        "active": flagged(PageFlag.ACTIVE),
        "lru": flagged(PageFlag.LRU),
        "swapcache": flagged(PageFlag.SWAPCACHE),
        "swapbacked": int(np.count_nonzero(flags & PageFlag.ANON) - np.count_nonzero(in_tail)),
        "thp": int(np.count_nonzero(huge | huge_zero)),
        "file_or_shared": 0,
        "unevictable": flagged(PageFlag.UNEVICTABLE),
    }


def process(state: "State", mm_index: int) -> dict[str, int]:
    """Return a process's fault counts and resident sizes in KiB, as /proc/PID/stat, status and smaps have them."""
    mm = state.mm[mm_index]
    return {
        "minflt": mm.minflt,
        "majflt": mm.majflt,
        "smaps.Anonymous": mm.nr_anon * PAGE_KIB,
        "smaps.AnonHugePages": nr_huge_mappings(state, mm_index) * ENTRIES_PER_TABLE * PAGE_KIB,
        "smaps.Swap": mm.nr_swap * PAGE_KIB,
        "VmSwap": mm.nr_swap * PAGE_KIB,
        "VmPTE": mm.nr_page_tables * PAGE_KIB,
        "ksm_merging_pages": mm.ksm_merging_pages,
        "ksm_rmap_items": mm.ksm_rmap_items,
        "dead": 0 if mm.alive else 1,
    }
