"""/proc/vmstat: levels of zones and nodes summed over the machine, then events since boot, a line each.

    nr_free_pages 107263
    nr_zone_inactive_anon 101
    ...
    pgalloc_dma32 3180
    ...

Linux: mm/vmstat.c (vmstat_text, vmstat_start). The names are those of Debian's amd64 kernel, with TLB flushes
counted (CONFIG_DEBUG_TLBFLUSH), and all lines are there: an event that is not modelled stays 0.
"""

from typing import TYPE_CHECKING, Final

from node import procfs
from node.phys.zone import ZoneId
from node.proc.stats import all_zones_items, machine_items, numa_items
from node.proc.zones import NumaCounts, populated_zones, zone_kinds

if TYPE_CHECKING:
    from node.state import State

WRITEBACK_ITEMS: Final = ("nr_dirty_threshold", "nr_dirty_background_threshold")
IO_EVENTS: Final = ("pgpgin", "pgpgout", "pswpin", "pswpout")
ZONE_EVENTS: Final = ("pgalloc", "allocstall", "pgskip")  # of each kind of zone
_ZONE_SUFFIXES: Final = {
    ZoneId.DMA: "dma",
    ZoneId.DMA32: "dma32",
    ZoneId.NORMAL: "normal",
    ZoneId.HIGHMEM: "high",
    ZoneId.MOVABLE: "movable",
    ZoneId.DEVICE: "device",
}
EVENTS: Final = (
    *("pgfree", "pgactivate", "pgdeactivate", "pglazyfree", "pgfault", "pgmajfault", "pglazyfreed"),
    *("pgrefill", "pgreuse", "pgsteal_kswapd", "pgsteal_direct", "pgdemote_kswapd", "pgdemote_direct"),
    *("pgscan_kswapd", "pgscan_direct", "pgscan_direct_throttle", "pgscan_anon", "pgscan_file"),
    *("pgsteal_anon", "pgsteal_file", "zone_reclaim_failed", "pginodesteal", "slabs_scanned"),
    *("kswapd_inodesteal", "kswapd_low_wmark_hit_quickly", "kswapd_high_wmark_hit_quickly", "pageoutrun"),
    *("pgrotated", "drop_pagecache", "drop_slab", "oom_kill"),
    *("numa_pte_updates", "numa_huge_pte_updates", "numa_hint_faults", "numa_hint_faults_local"),
    *("numa_pages_migrated", "pgmigrate_success", "pgmigrate_fail"),
    *("thp_migration_success", "thp_migration_fail", "thp_migration_split"),
    *("compact_migrate_scanned", "compact_free_scanned", "compact_isolated"),
    *("compact_stall", "compact_fail", "compact_success"),
    *("compact_daemon_wake", "compact_daemon_migrate_scanned", "compact_daemon_free_scanned"),
    *("htlb_buddy_alloc_success", "htlb_buddy_alloc_fail"),
    *("unevictable_pgs_culled", "unevictable_pgs_scanned", "unevictable_pgs_rescued"),
    *("unevictable_pgs_mlocked", "unevictable_pgs_munlocked", "unevictable_pgs_cleared"),
    "unevictable_pgs_stranded",
    *("thp_fault_alloc", "thp_fault_fallback", "thp_fault_fallback_charge"),
    *("thp_collapse_alloc", "thp_collapse_alloc_failed"),
    *("thp_file_alloc", "thp_file_fallback", "thp_file_fallback_charge", "thp_file_mapped"),
    *("thp_split_page", "thp_split_page_failed", "thp_deferred_split_page", "thp_split_pmd"),
    *("thp_scan_exceed_none_pte", "thp_scan_exceed_swap_pte", "thp_scan_exceed_share_pte"),
    *("thp_split_pud", "thp_zero_page_alloc", "thp_zero_page_alloc_failed"),
    *("thp_swpout", "thp_swpout_fallback"),
    *("balloon_inflate", "balloon_deflate", "balloon_migrate"),
    *("nr_tlb_remote_flush", "nr_tlb_remote_flush_received"),
    *("nr_tlb_local_flush_all", "nr_tlb_local_flush_one"),
    *("swap_ra", "swap_ra_hit", "ksm_swpin_copy", "cow_ksm", "zswpin", "zswpout"),
    *("direct_map_level2_splits", "direct_map_level3_splits"),
)


def vmstat(state: "State") -> str:
    """Return the text of /proc/vmstat."""
    counters = procfs.vmstat(state)
    suffixes = [_ZONE_SUFFIXES[kind] for kind in zone_kinds(state)]
    of_zones = [f"{event}_{suffix}" for event in ZONE_EVENTS for suffix in suffixes]
    levels = all_zones_items(state) | numa_items(_machine_numa(state)) | machine_items(state)
    events = (*WRITEBACK_ITEMS, *IO_EVENTS, *of_zones, *EVENTS)
    levels |= {name: counters.get(name, 0) for name in events}
    return "".join(f"{name} {value}\n" for name, value in levels.items())


def _machine_numa(state: "State") -> NumaCounts:
    zones = [zone.numa for zone in populated_zones(state)]
    return NumaCounts(
        hit=sum(zone.hit for zone in zones),
        miss=sum(zone.miss for zone in zones),
        foreign=sum(zone.foreign for zone in zones),
        other=sum(zone.other for zone in zones),
    )
