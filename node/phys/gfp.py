"""What a request's GFP flags (shared/gfp_flags.py) say to the page allocator: its highest zone, its migrate type.

The zone modifiers make one zone the highest: none is NORMAL, and HIGHMEM with MOVABLE is the MOVABLE zone.

Linux: include/linux/gfp.h (gfp_zone, gfp_migratetype).
"""

from typing import Final

from node.phys.migrate_type import MigrateType
from node.phys.zone import ZoneId
from shared.gfp_flags import Gfp
from shared.jit import kernel

TYPE_SHIFT: Final = 3  # MOVABLE and RECLAIMABLE, shifted, are the migrate types


@kernel
def gfp_zone(gfp: int) -> int:
    """Return the highest zone that a request takes frames from: a ``ZoneId``."""
    if gfp & Gfp.DMA:
        return ZoneId.DMA
    if gfp & Gfp.DMA32:
        return ZoneId.DMA32
    if gfp & Gfp.HIGHMEM:
        return ZoneId.MOVABLE if gfp & Gfp.MOVABLE else ZoneId.HIGHMEM
    return ZoneId.NORMAL


@kernel
def gfp_migrate_type(gfp: int) -> int:
    """Return the ``MigrateType`` of the frames that a request is for."""
    return gfp >> TYPE_SHIFT & (MigrateType.MOVABLE | MigrateType.RECLAIMABLE)
