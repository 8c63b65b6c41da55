"""/proc/zoneinfo: each zone's watermarks, sizes, reserve, items and per-CPU sets; a node's items with its first.

    Node 0, zone      DMA
      per-node stats                      once a node
          nr_inactive_anon 0
          ...
      pages free     3808
            boost    0
            min      22                   watermarks
            ...
            protection: (0, 442, 442, 442, 442)
          nr_free_pages 3808              the zone's items
          ...
      pagesets
        cpu: 0
                  count: 0
                  high:  27
                  batch: 1
      vm stats threshold: 2
      node_unreclaimable:  0
      start_pfn:           1

A zone that has no frames ends after its protection.

Linux: mm/vmstat.c (zoneinfo_show_print, calculate_normal_threshold).
"""

from typing import TYPE_CHECKING, Final

from node.proc.stats import node_items, numa_items, zone_items
from node.proc.zones import ZoneView, lru_pages, zones_of
from shared.constants import MIB, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node.state import State

THRESHOLD_UNIT_PAGES: Final = 128 * MIB // PAGE_SIZE
MAX_THRESHOLD: Final = 125  # a per-CPU difference is one signed byte


def zoneinfo(state: "State") -> str:
    """Return the text of /proc/zoneinfo."""
    zones = zones_of(state)
    populated = [zone for zone in zones if zone.populated]
    listed = lru_pages(state, populated)
    of_nodes = node_items(state, populated, listed)
    lists = iter(listed)
    nodes_shown: set[int] = set()
    text = []
    for zone in zones:
        of_node = None
        if zone.populated and zone.node not in nodes_shown:
            nodes_shown.add(zone.node)
            of_node = of_nodes[zone.node]
        text.append(zone_text(zone, zone_items(zone, next(lists)) if zone.populated else {}, of_node))
    return "".join(text)


def zone_text(zone: ZoneView, of_zone: "Mapping[str, int]", of_node: "Mapping[str, int] | None") -> str:
    """Return what is printed of one zone; ``of_node`` if it is the first of its node that has frames."""
    text = [f"Node {zone.node}, zone {zone.name:>8}"]
    if of_node is not None:
        text.append("\n  per-node stats" + _items(of_node))
    text.append(_pages(zone))
    if zone.populated:
        text += [_items(of_zone), _items(numa_items(zone.numa)), _pagesets(zone)]
        # No node of ours is given up on: reclaim that fails ends in an OOM kill.
        text.append(f"\n  node_unreclaimable:  {0}\n  start_pfn:           {zone.start_pfn}")
    return "".join(text) + "\n"


def stat_threshold(nr_cpus: int, managed_pages: int) -> int:
    """Return how far a CPU's own count of an item may be from the zone's, in pages."""
    size = managed_pages // THRESHOLD_UNIT_PAGES
    return min(2 * nr_cpus.bit_length() * (1 + size.bit_length()), MAX_THRESHOLD)


def _items(items: "Mapping[str, int]") -> str:
    return "".join(f"\n      {name:<12} {value}" for name, value in items.items())


def _pages(zone: ZoneView) -> str:
    numbers = {
        "boost": zone.boost,
        "min": zone.min,
        "low": zone.low,
        "high": zone.high,
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
        "cma": 0,
    }
    lines = "".join(f"\n        {name:<8} {value}" for name, value in numbers.items())
    protection = ", ".join(str(pages) for pages in zone.protection)
    return f"\n  pages free     {zone.free}{lines}\n        protection: ({protection})"


def _pagesets(zone: ZoneView) -> str:
    threshold = stat_threshold(len(zone.sets), zone.managed)
    return "\n  pagesets" + "".join(
        f"\n    cpu: {of_cpu.cpu}"
        f"\n              count: {of_cpu.count}"
        f"\n              high:  {of_cpu.high}"
        f"\n              batch: {of_cpu.batch}"
        f"\n  vm stats threshold: {threshold}"
        for of_cpu in zone.sets
    )
