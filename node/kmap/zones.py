"""Dividing a machine's frames into zones: which frame numbers each zone of each node spans.

Borders follow from who can reach what: old devices the first 16 MiB, 32-bit devices the first 4 GiB, a 32-bit kernel
its lowmem. MOVABLE is cut off the top of each node's highest zone. They are drawn at pageblocks; what lies between
such a border and the true one stays reserved.

Linux: mm/page_alloc.c (free_area_init, find_zone_movable_pfns_for_nodes), arch/x86/mm/init.c (zone_sizes_init).
# Differs from Linux: MOVABLE's border is a pageblock's, not one of 4 MiB; each node cuts its own highest zone.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.paging import PagingMode
from node.kmap.ram_map import CONVENTIONAL_PAGES, FIRST_PFN, LEGACY_END_PFN, RamMap
from node.phys.migrate_type import MigrateType
from node.phys.zone import DMA32_END_PFN, DMA_END_PFN, NR_ZONES, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, ZoneId
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State

Borders = list[tuple[int, int]]  # kind of zone, first frame behind it


def _borders(state: "State", ram: RamMap, lowmem: int) -> Borders:
    """Return the zones of the whole machine, MOVABLE apart, from the lowest up."""
    top = ram.ram[-1][1]
    mode = state.knob[Knob.PAGING_MODE]
    if mode == PagingMode.BITS_32:
        return [(ZoneId.DMA, DMA_END_PFN), (ZoneId.NORMAL, lowmem), (ZoneId.HIGHMEM, top)]
    if mode == PagingMode.NONE:
        return [(ZoneId.DMA, DMA_END_PFN), (ZoneId.NORMAL, top)]
    return [(ZoneId.DMA, DMA_END_PFN), (ZoneId.DMA32, DMA32_END_PFN), (ZoneId.NORMAL, top)]


def _up(pfn: int) -> int:
    return -(-pfn // PAGEBLOCK_PAGES) * PAGEBLOCK_PAGES


def _node_zones(ram: RamMap, nid: int, borders: Borders, movable_pages: int) -> dict[int, tuple[int, int]]:
    """Return (first, behind) of each zone of a node that spans anything."""
    start, end = ram.nodes[nid]
    if ram.device:
        end = min(end, ram.device[0])
    zones: dict[int, tuple[int, int]] = {}
    below = start
    for kind, border in borders:
        behind = min(max(_up(border) if border < end else border, below), end)
        if below < behind:
            zones[kind] = (below, behind)
        below = max(below, behind)
    if movable_pages and zones:
        highest = max(zones)
        first, behind = zones[highest]
        cut = max(_up(behind - movable_pages), first)
        if cut < behind:
            zones[ZoneId.MOVABLE] = (cut, behind)
            zones[highest] = (first, cut)
            if first == cut:
                del zones[highest]
    if ram.device and nid == len(ram.nodes) - 1:
        zones[ZoneId.DEVICE] = ram.device
    return zones


def _present(ram: RamMap, nid: int, first: int, behind: int) -> int:
    """Return how many frames of a range are memory."""
    found = sum(max(min(behind, piece[1]) - max(first, piece[0]), 0) for piece in ram.ram_of(nid))
    if first < LEGACY_END_PFN <= behind:
        found -= LEGACY_END_PFN - CONVENTIONAL_PAGES
    return found


def setup_zones(state: "State", ram: RamMap, lowmem: int, movable_pages: int) -> None:
    """Write all zones' ranges, and each pageblock's zone and type; all free lists are empty then.

    ``lowmem`` is how many frames the kernel maps directly; ``movable_pages`` are shared by the nodes.
    """
    borders = _borders(state, ram, lowmem)
    state.pageblock["zone"][:] = NIL
    state.pageblock["migrate_type"][:] = MigrateType.MOVABLE
    for name in ("first", "last"):
        state.free_list[name][:] = NIL
        state.pcp_list[name][:] = NIL
    for nid in range(len(ram.nodes)):
        zones = _node_zones(ram, nid, borders, movable_pages // len(ram.nodes))
        for kind in ZoneId:
            index = nid * NR_ZONES + kind
            zone = state.zone[index]
            zone.kind = kind
            zone.nid = nid
            if kind not in zones:
                continue
            first, behind = zones[kind]
            zone.start_pfn = max(first, FIRST_PFN)
            zone.end_pfn = behind
            zone.present = _present(ram, nid, zone.start_pfn, behind)
            state.pageblock["zone"][first >> PAGEBLOCK_ORDER : _up(behind) >> PAGEBLOCK_ORDER] = index
    for first, behind in ram.holes:
        state.pageblock["zone"][_up(first) >> PAGEBLOCK_ORDER : behind >> PAGEBLOCK_ORDER] = NIL


def zone_pieces(state: "State", first: int, behind: int) -> Iterator[tuple[int, int]]:
    """Yield [first, behind) in pieces that lie in one zone each."""
    while first < behind:
        end = min(behind, state.zone[int(state.pageblock["zone"][first >> PAGEBLOCK_ORDER])].end_pfn)
        yield first, end
        first = end
