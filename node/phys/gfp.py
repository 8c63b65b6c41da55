"""What a request for frames may do to succeed: GFP flags, and the names for their usual combinations.

    where   DMA, DMA32, HIGHMEM, MOVABLE        the highest zone that will do; THISNODE: no other node
    what    MOVABLE, RECLAIMABLE                the migrate type, by which pageblocks are kept apart
    how     HIGH, ATOMIC, MEMALLOC, NOMEMALLOC  how deep into the reserves
            DIRECT_RECLAIM, KSWAPD_RECLAIM      who may be made to reclaim
            NORETRY, RETRY_MAYFAIL, NOFAIL      how hard to try
    else    ZERO, COMP, NOWARN, IO, FS

The zone modifiers make one zone the highest: none is NORMAL, and HIGHMEM with MOVABLE is the MOVABLE zone.

Linux: include/linux/gfp_types.h, include/linux/gfp.h (gfp_zone, gfp_migratetype).
"""

from enum import IntEnum
from typing import Final


class Gfp(IntEnum):
    """Bits of a request (``__GFP_...``), by Linux's values."""

    DMA = 0x01
    HIGHMEM = 0x02
    DMA32 = 0x04
    MOVABLE = 0x08  # of the movable type; with HIGHMEM, from the zone MOVABLE down
    RECLAIMABLE = 0x10  # a slab whose objects a shrinker can free
    HIGH = 0x20  # may use half of what lies below min
    IO = 0x40
    FS = 0x80
    ZERO = 0x100
    ATOMIC = 0x200  # cannot wait, and is urgent
    DIRECT_RECLAIM = 0x400  # the task may reclaim itself, and wait for it
    KSWAPD_RECLAIM = 0x800  # kswapd may be woken
    NOWARN = 0x2000
    RETRY_MAYFAIL = 0x4000
    NOFAIL = 0x8000
    NORETRY = 0x10000  # may reclaim once, and never calls the OOM killer
    MEMALLOC = 0x20000  # ignores the watermarks
    COMP = 0x40000  # a compound page: the block stays one
    NOMEMALLOC = 0x80000  # never ignores them, whoever asks
    THISNODE = 0x200000


RECLAIM: Final = Gfp.DIRECT_RECLAIM | Gfp.KSWAPD_RECLAIM
GFP_ATOMIC: Final = Gfp.HIGH | Gfp.ATOMIC | Gfp.KSWAPD_RECLAIM
GFP_KERNEL: Final = RECLAIM | Gfp.IO | Gfp.FS
GFP_NOWAIT: Final = int(Gfp.KSWAPD_RECLAIM)
GFP_NOIO: Final = RECLAIM
GFP_DMA: Final = int(Gfp.DMA)
GFP_DMA32: Final = int(Gfp.DMA32)
GFP_USER: Final = GFP_KERNEL
GFP_HIGHUSER: Final = GFP_USER | Gfp.HIGHMEM
GFP_HIGHUSER_MOVABLE: Final = GFP_HIGHUSER | Gfp.MOVABLE
GFP_TRANSHUGE_LIGHT: Final = (GFP_HIGHUSER_MOVABLE | Gfp.COMP | Gfp.NOMEMALLOC | Gfp.NOWARN) & ~RECLAIM
