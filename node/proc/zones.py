"""Zones as the files of /proc see them: numbers read from the state's tables in one place.

    Node 0   DMA   DMA32   Normal   Movable   Device        a zone that has no frame is there all the same:
             ----  ------  (empty)  (empty)   (empty)       /proc/zoneinfo prints it, buddyinfo does not

What Linux keeps for each zone and we do not (pages on LRU lists) or walks lists for (free blocks of a migrate
type) is counted from the frames when it is asked for. Only memory in use costs time: a block of the largest
order is told from its first frame. The largest zone has of the LRU lists what the others have not.

Linux: include/linux/mmzone.h (struct zone, populated_zone), mm/vmstat.c (walk_zones_in_node).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from node.counters import Knob, VmStat
from node.phys.buddy import MAX_ORDER, NR_ORDERS
from node.phys.migrate_type import NR_MIGRATE_TYPES
from node.phys.page import PageFlag
from node.phys.zone import NR_ZONES, ZONE_NAMES, ZoneId

if TYPE_CHECKING:
    from node.state import State

Ints = npt.NDArray[Any]

MIGRATE_TYPE_NAMES: Final = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
KINDS_64: Final = (ZoneId.DMA, ZoneId.DMA32, ZoneId.NORMAL, ZoneId.MOVABLE, ZoneId.DEVICE)
KINDS_32: Final = (ZoneId.DMA, ZoneId.NORMAL, ZoneId.HIGHMEM, ZoneId.MOVABLE)


@dataclass(frozen=True, slots=True)
class PerCpuSet:
    """A CPU's lists of one zone."""

    cpu: int
    count: int
    high: int
    batch: int


@dataclass(frozen=True, slots=True)
class NumaCounts:
    """Where requests for frames were served, of one zone."""

    hit: int = 0  # this node was wanted
    miss: int = 0  # another was
    foreign: int = 0  # this one was wanted, another served
    other: int = 0  # by CPUs of other nodes


@dataclass(frozen=True, slots=True)
class ZoneView:
    """One zone's numbers, in pages unless they say otherwise; watermarks with the boost in them."""

    index: int
    kind: ZoneId
    node: int
    start_pfn: int
    spanned: int
    present: int
    managed: int
    free: int
    boost: int
    min: int
    low: int
    high: int
    protection: tuple[int, ...]  # [kind of zone that is asked for], of those that the kernel has
    free_blocks: tuple[int, ...]  # [order] blocks
    sets: tuple[PerCpuSet, ...]  # [cpu]
    numa: NumaCounts = NumaCounts()

    @property
    def name(self) -> str:
        """What Linux calls it."""
        return ZONE_NAMES[self.kind]

    @property
    def end_pfn(self) -> int:
        """First frame behind the zone."""
        return self.start_pfn + self.spanned

    @property
    def populated(self) -> bool:
        """Whether it has frames."""
        return self.present > 0


@dataclass(frozen=True, slots=True)
class LruPages:
    """Pages of one zone on the LRU lists."""

    inactive_anon: int
    active_anon: int


def zone_kinds(state: "State") -> tuple[ZoneId, ...]:
    """Return the kinds of zones that the machine's kernel is built with."""
    return KINDS_64 if state.knob[Knob.HAS_DMA32] else KINDS_32


def zones_of(state: "State") -> list[ZoneView]:
    """Return all zones, node after node, each node's by address."""
    kinds = zone_kinds(state)
    nodes = range(0, len(state.zone), NR_ZONES)
    return [_zone(state, base + kind, kinds) for base in nodes for kind in kinds]


def populated_zones(state: "State") -> list[ZoneView]:
    """Return the zones that have frames."""
    return [zone for zone in zones_of(state) if zone.populated]


def pageblocks(state: "State", zone: ZoneView) -> list[int]:
    """Return how many of a zone's pageblocks are of each migrate type."""
    blocks = np.asarray(state.pageblock)
    types = blocks["migrate_type"][blocks["zone"] == zone.index]
    counts: list[int] = np.bincount(types, minlength=NR_MIGRATE_TYPES).tolist()
    return counts


def free_blocks_of_types(state: "State", zone: ZoneView) -> list[list[int]]:
    """Return how many free blocks of each order a zone has of each migrate type: ``[type][order]``."""
    pages = np.asarray(state.page)
    whole, ranges = used_ranges(state, zone)
    heads = [whole]
    for first, behind in ranges:
        heads.append(np.flatnonzero(pages["page_flags"][first:behind] & PageFlag.BUDDY) + first)
    blocks = np.concatenate(heads)
    orders, types = pages["order"][blocks].astype(np.int64), pages["migrate_type"][blocks]
    counted = np.bincount(types * NR_ORDERS + orders, minlength=NR_MIGRATE_TYPES * NR_ORDERS)
    counts: list[list[int]] = counted.reshape(NR_MIGRATE_TYPES, NR_ORDERS).tolist()
    return counts


def lru_pages(state: "State", zones: Sequence[ZoneView]) -> list[LruPages]:
    """Return how many frames of each of the machine's populated ``zones`` are on which LRU list."""
    largest = max(range(len(zones)), key=lambda index: zones[index].spanned)
    found = [_listed(state, zone) if index != largest else LruPages(0, 0) for index, zone in enumerate(zones)]
    inactive = int(state.vm_stat[VmStat.NR_INACTIVE_ANON]) - sum(pages.inactive_anon for pages in found)
    active = int(state.vm_stat[VmStat.NR_ACTIVE_ANON]) - sum(pages.active_anon for pages in found)
    found[largest] = LruPages(inactive, active)
    return found


def flagged_pages(state: "State", zone: ZoneView, flag: PageFlag) -> int:
    """Return how many of a zone's frames have a flag that no free frame has."""
    flags = np.asarray(state.page)["page_flags"]
    _, ranges = used_ranges(state, zone)
    return sum(int(np.count_nonzero(flags[first:behind] & flag)) for first, behind in ranges)


def _listed(state: "State", zone: ZoneView) -> LruPages:
    flags = np.asarray(state.page)["page_flags"]
    active = inactive = 0
    for first, behind in used_ranges(state, zone)[1]:
        here = flags[first:behind]
        listed = here[(here & PageFlag.LRU) != 0]
        nr_active = int(np.count_nonzero(listed & PageFlag.ACTIVE))
        active += nr_active
        inactive += len(listed) - nr_active
    return LruPages(inactive, active)


def used_ranges(state: "State", zone: ZoneView) -> tuple[Ints, list[tuple[int, int]]]:
    """Return a zone's free blocks of the largest order, and the ranges of frames between them."""
    pages = np.asarray(state.page)
    first = zone.start_pfn >> MAX_ORDER
    starts = np.arange(first, -(-zone.end_pfn >> MAX_ORDER), dtype=np.int64) << MAX_ORDER
    at = np.maximum(starts, zone.start_pfn)
    is_free = ((pages["page_flags"][at] & PageFlag.BUDDY) != 0) & (pages["order"][at] == MAX_ORDER)
    changes = np.flatnonzero(np.diff(np.concatenate([[True], is_free, [True]]).astype(np.int8)))
    borders = np.clip((changes + first) << MAX_ORDER, zone.start_pfn, zone.end_pfn).tolist()
    return starts[is_free], list(zip(borders[::2], borders[1::2], strict=True))


def _zone(state: "State", index: int, kinds: Sequence[ZoneId]) -> ZoneView:
    zone = state.zone[index]
    boost = int(zone.boost)
    reserve = [int(state.lowmem_reserve[index * NR_ZONES + kind]) for kind in kinds]
    populated = zone.present > 0
    return ZoneView(
        index=index,
        kind=ZoneId(index % NR_ZONES),
        node=index // NR_ZONES,
        start_pfn=int(zone.start_pfn) if populated else 0,
        spanned=int(zone.end_pfn - zone.start_pfn) if populated else 0,
        present=int(zone.present),
        managed=int(zone.managed),
        free=int(zone.nr_free),
        boost=boost,
        min=int(zone.min_wmark) + boost,
        low=int(zone.low) + boost,
        high=int(zone.high) + boost,
        protection=tuple(reserve),
        free_blocks=tuple(
            int(state.free_area[index * NR_ORDERS + order].nr_free) for order in range(NR_ORDERS)
        ),
        sets=tuple(_set(state, cpu, index) for cpu in range(int(state.knob[Knob.NR_CPUS]))),
        numa=NumaCounts(
            int(zone.numa_hit), int(zone.numa_miss), int(zone.numa_foreign), int(zone.numa_other)
        ),
    )


def _set(state: "State", cpu: int, zone: int) -> PerCpuSet:
    lists = state.pcp[cpu * len(state.zone) + zone]
    return PerCpuSet(cpu, int(lists.count), int(lists.high), int(lists.batch))
