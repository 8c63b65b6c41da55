"""/proc/pagetypeinfo: free blocks by migrate type and order, and pageblocks by migrate type, a node after a node.

    Free pages count per migrate type at order       0      1  ...
    Node    0, zone    DMA32, type    Unmovable      1      0  ...

    Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate
    Node 0, zone    DMA32           18          224            6            0            0

The second part tells fragmentation from fallback: a pageblock belongs to the type that claimed it, whatever
single pages of other types lie in it.

Linux: mm/vmstat.c (pagetypeinfo_show, pagetypeinfo_showfree_print, pagetypeinfo_showblockcount_print).
"""

from itertools import groupby
from typing import TYPE_CHECKING, Final

from node.phys.buddy import NR_ORDERS
from node.phys.zone import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES
from node.proc.zones import (
    MIGRATE_TYPE_NAMES,
    ZoneView,
    free_blocks_of_types,
    pageblocks,
    populated_zones,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.state import State

# Linux walks a free list and stops here, with a ">" before the number.
MOST_COUNTED: Final = 100_000


def pagetypeinfo(state: "State") -> str:
    """Return the text of /proc/pagetypeinfo."""
    nodes = groupby(populated_zones(state), key=lambda zone: zone.node)
    return "".join(_node(state, list(zones)) for _, zones in nodes)


def _node(state: "State", zones: list[ZoneView]) -> str:
    orders = "".join(f"{order:6d} " for order in range(NR_ORDERS))
    types = "".join(f"{name:>12} " for name in MIGRATE_TYPE_NAMES)
    lines = [
        f"Page block order: {PAGEBLOCK_ORDER}",
        f"Pages per block:  {PAGEBLOCK_PAGES}",
        "",
        f"{'Free pages count per migrate type at order':<43} {orders}",
        *(
            free_line(zone, name, blocks)
            for zone in zones
            for name, blocks in zip(MIGRATE_TYPE_NAMES, free_blocks_of_types(state, zone), strict=True)
        ),
        "",
        f"{'Number of blocks type ':<23}{types}",
        *(_block_line(state, zone) for zone in zones),
    ]
    return "\n".join(lines) + "\n"


def free_line(zone: ZoneView, type_name: str, blocks: "Sequence[int]") -> str:
    """Return the line of a zone's free blocks of one migrate type, ``blocks[order]``."""
    counts = "".join(_capped(count) for count in blocks)
    return f"Node {zone.node:4d}, zone {zone.name:>8}, type {type_name:>12} {counts}"


def _capped(count: int) -> str:
    return f"{count:6d} " if count < MOST_COUNTED else f">{MOST_COUNTED:6d} "


def _block_line(state: "State", zone: ZoneView) -> str:
    counts = "".join(f"{count:12d} " for count in pageblocks(state, zone))
    return f"Node {zone.node}, zone {zone.name:>8} {counts}"
