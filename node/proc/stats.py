"""Linux's levels by zone and by node, in its order, and how each reads from a machine's state.

/proc/vmstat and /proc/zoneinfo show the same items: the first summed over the machine, the second a zone or
a node at a time. What is not modelled is 0, as on a machine that does not use it.

Linux: include/linux/mmzone.h (enum zone_stat_item, numa_stat_item, node_stat_item), mm/vmstat.c (vmstat_text).
Items that depend on the configuration are those of Debian's amd64 kernel.
# Differs from Linux: on a machine of several nodes, a node's items are told by its frames' flags, so that
# reclaimable slabs and unmapped anonymous pages are counted with their kind.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from node.counters import VmStat
from node.phys.page import PageFlag
from node.proc.zones import LruPages, NumaCounts, ZoneView, flagged_pages

if TYPE_CHECKING:
    from node.state import State

ZONE_ITEMS: Final = (
    "nr_free_pages",
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",
    "nr_zone_active_file",
    "nr_zone_unevictable",
    "nr_zone_write_pending",
    "nr_mlock",
    "nr_bounce",
    "nr_zspages",
    "nr_free_cma",
)
NUMA_ITEMS: Final = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")
NODE_ITEMS: Final = (
    "nr_inactive_anon",
    "nr_active_anon",
    "nr_inactive_file",
    "nr_active_file",
    "nr_unevictable",
    "nr_slab_reclaimable",
    "nr_slab_unreclaimable",
    "nr_isolated_anon",
    "nr_isolated_file",
    "workingset_nodes",
    "workingset_refault_anon",
    "workingset_refault_file",
    "workingset_activate_anon",
    "workingset_activate_file",
    "workingset_restore_anon",
    "workingset_restore_file",
    "workingset_nodereclaim",
    "nr_anon_pages",
    "nr_mapped",
    "nr_file_pages",
    "nr_dirty",
    "nr_writeback",
    "nr_writeback_temp",
    "nr_shmem",
    "nr_shmem_hugepages",
    "nr_shmem_pmdmapped",
    "nr_file_hugepages",
    "nr_file_pmdmapped",
    "nr_anon_transparent_hugepages",
    "nr_vmscan_write",
    "nr_vmscan_immediate_reclaim",
    "nr_dirtied",
    "nr_written",
    "nr_throttled_written",
    "nr_kernel_misc_reclaimable",
    "nr_foll_pin_acquired",
    "nr_foll_pin_released",
    "nr_kernel_stack",
    "nr_page_table_pages",
    "nr_sec_page_table_pages",
    "nr_swapcached",
    "pgpromote_success",
    "pgpromote_candidate",
)
# Levels of ours by their items of a node. Pages of the swap cache are file pages to Linux.
_NODE_LEVELS: Final = {
    "nr_inactive_anon": VmStat.NR_INACTIVE_ANON,
    "nr_active_anon": VmStat.NR_ACTIVE_ANON,
    "nr_inactive_file": VmStat.NR_INACTIVE_FILE,
    "nr_active_file": VmStat.NR_ACTIVE_FILE,
    "nr_unevictable": VmStat.NR_UNEVICTABLE,
    "nr_slab_reclaimable": VmStat.NR_SLAB_RECLAIMABLE,
    "nr_slab_unreclaimable": VmStat.NR_SLAB_UNRECLAIMABLE,
    "nr_isolated_anon": VmStat.NR_ISOLATED,
    "nr_anon_pages": VmStat.NR_ANON_PAGES,
    "nr_file_pages": VmStat.NR_SWAPCACHED,
    "nr_writeback": VmStat.NR_WRITEBACK,
    "nr_page_table_pages": VmStat.NR_PAGE_TABLE_PAGES,
    "nr_swapcached": VmStat.NR_SWAPCACHED,
}


# Of nodes but the first, what a flag of their frames tells.
_NODE_FLAGS: Final = {
    "nr_slab_unreclaimable": PageFlag.SLAB,
    "nr_isolated_anon": PageFlag.ISOLATED,
    "nr_anon_pages": PageFlag.ANON,
    "nr_file_pages": PageFlag.SWAPCACHE,
    "nr_writeback": PageFlag.WRITEBACK,
    "nr_page_table_pages": PageFlag.PAGE_TABLE,
    "nr_swapcached": PageFlag.SWAPCACHE,
}


def zone_items(zone: ZoneView, listed: LruPages) -> dict[str, int]:
    """Return a zone's items, in Linux's order."""
    known = {
        "nr_free_pages": zone.free,
        "nr_zone_inactive_anon": listed.inactive_anon,
        "nr_zone_active_anon": listed.active_anon,
    }
    return {name: known.get(name, 0) for name in ZONE_ITEMS}


def all_zones_items(state: "State") -> dict[str, int]:
    """Return the items of all zones, added up."""
    known = {
        "nr_free_pages": int(state.vm_stat[VmStat.NR_FREE_PAGES]),
        "nr_zone_inactive_anon": int(state.vm_stat[VmStat.NR_INACTIVE_ANON]),
        "nr_zone_active_anon": int(state.vm_stat[VmStat.NR_ACTIVE_ANON]),
        "nr_zone_unevictable": int(state.vm_stat[VmStat.NR_UNEVICTABLE]),
        "nr_mlock": int(state.vm_stat[VmStat.NR_MLOCK]),
    }
    return {name: known.get(name, 0) for name in ZONE_ITEMS}


def numa_items(numa: NumaCounts) -> dict[str, int]:
    """Return a zone's NUMA events, in Linux's order."""
    known = {
        "numa_hit": numa.hit,
        "numa_miss": numa.miss,
        "numa_foreign": numa.foreign,
        "numa_local": numa.hit + numa.miss - numa.other,  # every request is a hit or miss, and local or not
        "numa_other": numa.other,
    }
    return {name: known.get(name, 0) for name in NUMA_ITEMS}


def machine_items(state: "State") -> dict[str, int]:
    """Return the levels that Linux keeps for each node, of all of them, in its order."""
    known = {name: int(state.vm_stat[level]) for name, level in _NODE_LEVELS.items()}
    return {name: known.get(name, 0) for name in NODE_ITEMS}


def node_items(state: "State", zones: Sequence[ZoneView], listed: Sequence[LruPages]) -> list[dict[str, int]]:
    """Return each node's items, in Linux's order.

    ``zones`` are the machine's populated ones, ``listed`` their pages on LRU lists. A machine of one node has
    them counted. Of several, the first has what the others have not.
    """
    nr_nodes = zones[-1].node + 1
    items = [dict.fromkeys(NODE_ITEMS, 0) for _ in range(nr_nodes)]
    items[0] = machine_items(state)
    for zone, pages in zip(zones, listed, strict=True):
        if zone.node:
            mine = {name: flagged_pages(state, zone, flag) for name, flag in _NODE_FLAGS.items()}
            mine |= {"nr_inactive_anon": pages.inactive_anon, "nr_active_anon": pages.active_anon}
            for name, count in mine.items():
                items[zone.node][name] += count
                items[0][name] = max(items[0][name] - count, 0)
    return items
