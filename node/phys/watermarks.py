"""Watermarks: how many free frames a zone keeps, and for whom.

    high  kswapd goes back to sleep
    low   an allocation that would go below it wakes kswapd
    min   below it only reclaim itself and GFP_HIGH requests allocate; all others reclaim first

Linux: mm/page_alloc.c (calculate_min_free_kbytes, __setup_per_zone_wmarks, __zone_watermark_ok,
setup_per_zone_lowmem_reserve).
"""

from math import isqrt
from typing import TYPE_CHECKING, Final

from node.counters import Knob
from shared.constants import PAGE_KIB
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MIN_FREE_KBYTES_FACTOR: Final = 16
MIN_FREE_KBYTES_RANGE: Final = (128, 262144)
WATERMARK_SCALE_UNIT: Final = 10_000
LOWMEM_RESERVE_RATIO: Final = (256, 256, 32)  # sysctl_lowmem_reserve_ratio of DMA, DMA32, NORMAL
BATCH_SHARE_SHIFT: Final = 10  # a batch is about 1/1024 of the zone, at most 1 MiB, then a quarter of it
BATCH_MAX_PAGES: Final = 256
BATCH_DIVISOR: Final = 4
GFP_HIGH_DIVISOR: Final = 2  # ALLOC_HIGH: half of min


def default_min_free_kbytes(managed_pages: int) -> int:
    """Return min_free_kbytes as Linux sets it at boot: 4 * sqrt(KiB of memory), in 128..262144."""
    low, high = MIN_FREE_KBYTES_RANGE
    return min(max(isqrt(managed_pages * PAGE_KIB * MIN_FREE_KBYTES_FACTOR), low), high)


def setup_watermarks(state: "State") -> None:
    """Set every zone's watermarks and reserve from ``min_free_kbytes`` and ``watermark_scale_factor``."""
    managed = [int(zone["managed"]) for zone in state.zone[:]]
    pages_min = int(state.knob[Knob.MIN_FREE_KBYTES]) // PAGE_KIB
    for index, pages in enumerate(managed):
        zone = state.zone[index]
        zone.min_wmark = pages_min * pages // max(sum(managed), 1)
        gap = max(
            zone.min_wmark // 4, pages * int(state.knob[Knob.WATERMARK_SCALE_FACTOR]) // WATERMARK_SCALE_UNIT
        )
        zone.low = zone.min_wmark + gap
        zone.high = zone.min_wmark + 2 * gap
        zone.protection = sum(managed[index + 1 :]) // LOWMEM_RESERVE_RATIO[index]


def pcp_batch(managed_pages: int) -> int:
    """Return how many frames move between a per-CPU list and the buddy system at a time."""
    batch = max(min(managed_pages >> BATCH_SHARE_SHIFT, BATCH_MAX_PAGES) // BATCH_DIVISOR, 1)
    return max((1 << ((batch + batch // 2).bit_length() - 1)) - 1, 1)


def pcp_high(low_watermark: int, nr_cpus: int, batch: int) -> int:
    """Return the length from which a per-CPU list gives a batch back."""
    return max(low_watermark // nr_cpus, batch * BATCH_DIVISOR)


@kernel
def watermark_ok(state: "State", zone_index: int, order: int, mark: int) -> int:
    """Return whether the zone keeps more than ``mark`` and its reserve after giving 2**order frames."""
    zone = state.zone[zone_index]
    return 1 if zone.nr_free - ((1 << order) - 1) > mark + zone.protection else 0
