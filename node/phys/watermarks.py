"""Watermarks: how many free frames a zone keeps, and for whom.

    high  kswapd goes back to sleep
    low   an allocation that would go below it wakes kswapd
    min   below it are reserves: half of it for Gfp.HIGH, a quarter more for who cannot wait as well (ATOMIC),
          all of it for reclaim itself, which frees more than it takes

On top of its watermark a zone keeps ``lowmem_reserve`` pages from requests that a higher zone would do for as well.
Fragmentation raises all three marks for a while (``boost``).

The per-CPU lists hold up to ``high`` frames, in batches of ``batch``: both follow from the zone's size.

Linux: mm/page_alloc.c (calculate_min_free_kbytes, __setup_per_zone_wmarks, __zone_watermark_ok, zone_watermark_fast,
setup_per_zone_lowmem_reserve, zone_batchsize, zone_highsize).
# Differs from Linux: a machine without paging has per-CPU lists too; nothing raises min_free_kbytes for huge pages.
"""

from math import isqrt
from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.phys.buddy import NR_ORDERS, first_free
from node.phys.fallback import AllocFlag
from node.phys.gfp import gfp_zone
from node.phys.migrate_type import NR_PCP_TYPES, MigrateType
from node.phys.zone import LOWMEM_RESERVE_RATIO, NR_ZONES, ZoneId
from shared.constants import NIL, PAGE_KIB
from shared.gfp_flags import Gfp
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MIN_FREE_KBYTES_FACTOR: Final = 16
MIN_FREE_KBYTES_RANGE: Final = (128, 262144)
WATERMARK_SCALE_UNIT: Final = 10_000
HIGHMEM_MIN_SHARE: Final = 1024  # HIGHMEM's min: its pages by this, from 32 to 128
HIGHMEM_MIN_RANGE: Final = (32, 128)
BATCH_SHARE_SHIFT: Final = 10  # a batch is about 1/1024 of the zone, at most 1 MiB, then a quarter of it
BATCH_MAX_PAGES: Final = 256
BATCH_DIVISOR: Final = 4
MIN_HIGH_FRACTION: Final = 8  # smallest vm.percpu_pagelist_high_fraction that counts
RESERVES: Final = AllocFlag.OOM | AllocFlag.NON_BLOCK | AllocFlag.MIN_RESERVE | AllocFlag.HIGHATOMIC


# --- formulas -------------------------------------------------------------------------------------------


def default_min_free_kbytes(lowmem_pages: int) -> int:
    """Return min_free_kbytes as Linux sets it at boot: 4 * sqrt(KiB of directly mapped memory), in 128..262144."""
    low, high = MIN_FREE_KBYTES_RANGE
    return min(max(isqrt(lowmem_pages * PAGE_KIB * MIN_FREE_KBYTES_FACTOR), low), high)


def highmem_kinds(state: "State") -> frozenset[int]:
    """Return the kinds of zones that the kernel cannot map: none on a 64-bit machine (is_highmem)."""
    has_highmem = any(state.zone[index].present for index in range(ZoneId.HIGHMEM, len(state.zone), NR_ZONES))
    return frozenset({ZoneId.HIGHMEM, ZoneId.MOVABLE}) if has_highmem else frozenset()


def setup_watermarks(state: "State") -> None:
    """Set every zone's watermarks from ``min_free_kbytes`` and ``watermark_scale_factor``."""
    highmem = highmem_kinds(state)
    zones = [state.zone[index] for index in range(len(state.zone))]
    lowmem = max(sum(zone.managed for zone in zones if zone.kind not in highmem), 1)
    pages_min = int(state.knob[Knob.MIN_FREE_KBYTES]) // PAGE_KIB
    scale = int(state.knob[Knob.WATERMARK_SCALE_FACTOR])
    for zone in zones:
        share = pages_min * zone.managed // lowmem
        zone.min_wmark = share
        if zone.kind in highmem and zone.managed:
            low, high = HIGHMEM_MIN_RANGE
            zone.min_wmark = min(max(zone.managed // HIGHMEM_MIN_SHARE, low), high)
        gap = max(share // 4, zone.managed * scale // WATERMARK_SCALE_UNIT)
        zone.low = zone.min_wmark + gap
        zone.high = zone.low + gap
        zone.boost = 0


def setup_lowmem_reserve(state: "State", ratio: tuple[int, ...] = LOWMEM_RESERVE_RATIO) -> None:
    """Set what each zone keeps from requests for higher zones: the higher zones' pages by its ratio.

    ``ratio`` has a number for each of DMA, DMA32, NORMAL, HIGHMEM and MOVABLE.
    """
    state.lowmem_reserve[:] = 0
    for base in range(0, len(state.zone), NR_ZONES):
        for kind in range(ZoneId.DEVICE):
            keeps = ratio[kind] > 0 and state.zone[base + kind].managed > 0
            above = 0
            for higher in range(kind + 1, NR_ZONES):
                above += int(state.zone[base + higher].managed)
                reserve = above // ratio[kind] if keeps else 0
                state.lowmem_reserve[(base + kind) * NR_ZONES + higher] = reserve


def pcp_batch(managed_pages: int) -> int:
    """Return how many frames move between a per-CPU list and its zone at a time."""
    batch = max(min(managed_pages >> BATCH_SHARE_SHIFT, BATCH_MAX_PAGES) // BATCH_DIVISOR, 1)
    return max((1 << ((batch + batch // 2).bit_length() - 1)) - 1, 1)


def pcp_high(low_watermark: int, nr_local_cpus: int, batch: int) -> int:
    """Return how many frames a CPU's lists for a zone hold.

    The zone's low watermark, shared by the CPUs of its node (by all, if none is on it), and four batches at least.
    """
    return max(low_watermark // nr_local_cpus, batch * BATCH_DIVISOR)


def pcp_high_of_fraction(managed_pages: int, fraction: int, nr_local_cpus: int, batch: int) -> int:
    """Return the same where vm.percpu_pagelist_high_fraction says which part of the zone the lists may hold."""
    return max(managed_pages // fraction // nr_local_cpus, batch * BATCH_DIVISOR)


# --- checks ---------------------------------------------------------------------------------------------


@kernel
def low_mark(state: "State", zone_index: int) -> int:
    """Return a zone's low watermark with its boost."""
    zone = state.zone[zone_index]
    return zone.low + zone.boost


@kernel
def high_mark(state: "State", zone_index: int) -> int:
    """Return a zone's high watermark with its boost."""
    zone = state.zone[zone_index]
    return zone.high + zone.boost


@kernel
def mark_of(state: "State", zone_index: int, alloc_flags: int) -> int:
    """Return the watermark, boost included, that an attempt respects."""
    zone = state.zone[zone_index]
    if alloc_flags & AllocFlag.WMARK_LOW:
        return zone.low + zone.boost
    if alloc_flags & AllocFlag.WMARK_HIGH:
        return zone.high + zone.boost
    return zone.min_wmark + zone.boost


@kernel
def _lowered(mark: int, alloc_flags: int) -> int:
    """Return how far below a watermark an attempt with these rights may go."""
    if alloc_flags & AllocFlag.MIN_RESERVE:
        mark -= mark // 2
        if alloc_flags & AllocFlag.NON_BLOCK:
            mark -= mark // 4
    if alloc_flags & AllocFlag.OOM:
        mark -= mark // 2
    return mark


@kernel
def has_block(state: "State", zone_index: int, order: int, alloc_flags: int) -> int:
    """Return whether a zone has a free block of at least 2**order frames that an attempt may use."""
    for found in range(order, NR_ORDERS):
        for migrate_type in range(NR_PCP_TYPES):
            if first_free(state, zone_index, found, migrate_type) != NIL:
                return 1
        if (
            alloc_flags & (AllocFlag.HIGHATOMIC | AllocFlag.OOM)
            and first_free(state, zone_index, found, MigrateType.HIGHATOMIC) != NIL
        ):
            return 1
    return 0


ZONE_BITS: Final = 3
ZONE_MASK: Final = (1 << ZONE_BITS) - 1
FLAGS_MASK: Final = 0xFFF
FLAGS_BITS: Final = 15


@kernel
def watermark_request(mark: int, alloc_flags: int, highest: int) -> int:
    """Return in one number what an attempt may do: its mark, its rights, and the highest zone it asks for."""
    return mark << FLAGS_BITS | alloc_flags << ZONE_BITS | highest


@kernel
def watermark_ok_with(state: "State", zone: int, order: int, request: int, free_pages: int) -> int:
    """Return whether a zone with ``free_pages`` would keep the mark of ``watermark_request`` (__zone_watermark_ok)."""
    alloc_flags = request >> ZONE_BITS & FLAGS_MASK
    mark = request >> FLAGS_BITS
    free_pages -= (1 << order) - 1
    if alloc_flags & RESERVES:
        mark = _lowered(mark, alloc_flags)
    else:
        free_pages -= state.zone[zone].nr_reserved_highatomic
    if free_pages <= mark + state.lowmem_reserve[zone * NR_ZONES + (request & ZONE_MASK)]:
        return 0
    return 1 if order == 0 else has_block(state, zone, order, alloc_flags)


@kernel
def watermark_ok(state: "State", zone: int, order: int, mark: int, highest: int) -> int:
    """Return whether a zone keeps ``mark`` after giving a block to somebody without rights who asks for ``highest``."""
    request = watermark_request(mark, 0, highest)
    return watermark_ok_with(state, zone, order, request, state.zone[zone].nr_free)


@kernel
def may_allocate(state: "State", zone_index: int, order: int, gfp: int, alloc_flags: int) -> int:
    """Return whether an attempt may take a block from a zone (zone_watermark_fast)."""
    highest = gfp_zone(gfp)
    zone = state.zone[zone_index]
    request = watermark_request(mark_of(state, zone_index, alloc_flags), alloc_flags, highest)
    if watermark_ok_with(state, zone_index, order, request, zone.nr_free):
        return 1
    # A boost is no reason to refuse single frames to those who cannot wait.
    urgent = gfp & Gfp.ATOMIC and zone.boost and order == 0
    if not urgent or alloc_flags & (AllocFlag.WMARK_LOW | AllocFlag.WMARK_HIGH):
        return 0
    request = watermark_request(zone.min_wmark, alloc_flags, highest)
    return watermark_ok_with(state, zone_index, order, request, zone.nr_free)
