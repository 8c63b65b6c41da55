"""What a machine's counters are called, by Linux's names, and what /proc says of its processes."""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob, KsmStat, VmEvent, VmStat
from node.phys.page import PageFlag
from node.pool import Pool
from node.proc.smaps import rollup
from node.proc.status import sizes as status_sizes
from node.reclaim.oom import oom_score
from shared.constants import ENTRIES_PER_TABLE, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

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


def unmapped_pages(start: int, end: int) -> dict[str, int]:
    """Return what is told of [start, end) of a process that has ended and that nobody has waited for yet."""
    nothing = dict.fromkeys(("present", "swapped", "exclusive", "file_or_shared"), 0)
    return {"pages": (end - start) >> PAGE_SHIFT} | nothing


def process(state: "State", mm_index: int) -> dict[str, int]:
    """Return a process's fault counts and resident sizes in KiB, as /proc/PID/stat, status and smaps have them."""
    mm = state.mm[mm_index]
    values = {
        "minflt": mm.minflt,
        "majflt": mm.majflt,
        "oom_score": oom_score(state, mm_index),
        "ksm_merging_pages": mm.ksm_merging_pages,
        "ksm_rmap_items": mm.ksm_rmap_items,
        "dead": 0 if mm.alive else 1,
    }
    values |= {name: value for name, value in status_sizes(state, mm_index).items() if name != "HugetlbPages"}
    return values | {f"smaps.{name}": value for name, value in rollup(state, mm_index).items()}
