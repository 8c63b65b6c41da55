"""Zones: the ranges of frames that requests may be limited to, each with its watermarks.

        0        16 MiB                        4 GiB
        |  DMA   |            DMA32            |        NORMAL ...

Linux: include/linux/mmzone.h (struct zone), mm/page_alloc.c.
"""

from enum import IntEnum

import numpy as np

from shared.constants import GIB, MIB, PAGE_SIZE

ZONE = np.dtype(
    [
        ("start_pfn", np.int64),
        ("end_pfn", np.int64),  # first frame behind the zone
        ("managed", np.int64),  # frames that the buddy system has or has handed out
        ("nr_free", np.int64),
        ("min_wmark", np.int64),  # watermarks, in pages (`min` would hide a method of numpy's)
        ("low", np.int64),
        ("high", np.int64),
        ("protection", np.int64),  # lowmem_reserve against requests that prefer a higher zone, from build
        ("reclaim_active", np.int64),  # kswapd is at work: per-CPU lists keep four batches at most
    ],
    align=True,
)


class ZoneId(IntEnum):
    """Zones of a 64-bit machine, in order of address; requests are served from the highest down."""

    DMA = 0
    DMA32 = 1
    NORMAL = 2


NR_ZONES = len(ZoneId)
DMA_END_PFN = 16 * MIB // PAGE_SIZE
DMA32_END_PFN = 4 * GIB // PAGE_SIZE
