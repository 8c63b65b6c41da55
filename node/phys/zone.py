"""Zones: the ranges of frames that requests may be limited to, each with its free memory and watermarks.

    64 bits   0        16 MiB                  4 GiB
              |  DMA   |        DMA32          |          NORMAL          | MOVABLE |   DEVICE
    32 bits   0        16 MiB          lowmem ends
              |  DMA   |    NORMAL     |             HIGHMEM              | MOVABLE |

Every NUMA node has its own of each kind; the zone of kind k on node n is ``state.zone[n * NR_ZONES + k]``, and a
kind that a node lacks is a zone without frames. Old devices reach DMA alone, 32-bit devices DMA32; a 32-bit kernel
cannot map HIGHMEM; MOVABLE takes movable requests only, so that all of it can be emptied; DEVICE is memory that a
device brings, which the buddy system never hands out.

Linux: include/linux/mmzone.h (struct zone), mm/page_alloc.c.
"""

from enum import IntEnum
from typing import Final

import numpy as np

from shared.constants import GIB, MIB, PAGE_SIZE

# What every allocation reads stands in the first cache line.
ZONE = np.dtype(
    [
        ("nr_free", np.int64),
        ("low", np.int64),  # watermarks, in pages, without the boost
        ("boost", np.int64),  # what fragmentation has added to all three
        ("nr_reserved_highatomic", np.int64),
        ("numa_hit", np.int64),  # requests that wanted this node and got it
        ("kind", np.int32),  # ZoneId
        ("nid", np.int32),
        ("end_pfn", np.int64),  # first frame behind the zone
        ("min_wmark", np.int64),  # (`min` would hide a method of numpy's)
        ("high", np.int64),
        ("start_pfn", np.int64),
        ("present", np.int64),  # frames that are RAM
        ("managed", np.int64),  # of them, those that the buddy system has or has handed out
        ("reclaim_active", np.int32),  # kswapd is at work: per-CPU lists keep four batches at most
        ("boosted", np.int32),  # fragmentation happened: wake kswapd after this allocation
        ("boost_seen", np.int64),  # of the boost, what kswapd is at work for
        ("numa_miss", np.int64),  # requests that wanted another node
        ("numa_foreign", np.int64),  # requests that wanted this node and got another
        ("numa_other", np.int64),  # requests from CPUs of other nodes
        ("compact_free_pfn", np.int64),  # where compaction's free scanner goes on; 0: at the end
        ("compact_migrate_pfn", np.int64),  # and its migration scanner, when it does not wait
        ("compact_migrate_pfn_sync", np.int64),  # and when it does; 0: at the start
        ("compact_considered", np.int32),  # attempts since compaction last failed
        ("compact_defer_shift", np.int32),  # 1 << this many are passed over
        ("compact_order_failed", np.int32),
        ("compact_blockskip_flush", np.int32),  # forget which pageblocks were found empty
        ("compact_init_free_pfn", np.int64),  # a free scanner here or above is at its start
        ("compact_init_migrate_pfn", np.int64),  # a migration scanner that starts here sees the whole zone
    ],
    align=True,
)


class ZoneId(IntEnum):
    """Kinds of zones; requests are served from the highest that will do, downwards."""

    DMA = 0
    DMA32 = 1
    NORMAL = 2
    HIGHMEM = 3
    MOVABLE = 4
    DEVICE = 5


ZONE_NAMES: Final = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
NR_ZONES: Final = len(ZoneId)
PAGEBLOCK_ORDER: Final = 9  # node/phys/migrate_type.py
PAGEBLOCK_PAGES: Final = 1 << PAGEBLOCK_ORDER
# sysctl_lowmem_reserve_ratio of DMA, DMA32, NORMAL, HIGHMEM, MOVABLE; 0: that zone keeps nothing.
LOWMEM_RESERVE_RATIO: Final = (256, 256, 32, 0, 0)
DMA_END_PFN: Final = 16 * MIB // PAGE_SIZE
DMA32_END_PFN: Final = 4 * GIB // PAGE_SIZE
