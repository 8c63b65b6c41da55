"""A picture of physical memory: what each part of it is for, in at most some thousand cells.

    frames   |R|R|K|.|.|.|.|.|U|U|U|U|T|U|.|.|     R reserved, K kernel, U user, T page table, . free
    cells    |  RRK.  |  ....  |  UUUU  | TU.. |   2**cell_order frames each, a zone's own
                  R      F(2)      U        .      what most frames are, and a free block's order

In a machine of up to 128 MiB all frames are looked at. In a larger one a cell is more than eight frames, and
eight of them, evenly spread, stand for it: memory of any size is drawn in some milliseconds. A frame is inside
a free block if one begins at its number with the low bits cleared, as the buddy system finds it.

No kernel is involved: the tables are read between two calls, and nothing is changed.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from node.phys.buddy import MAX_ORDER
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_ORDER
from shared.constants import NIL
from shared.look import MemoryPicture, PicturedZone, Use

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.state import State

Ints = npt.NDArray[Any]

MAX_CELLS: Final = 4096
PROBES_ORDER: Final = 3  # 8 frames of a cell are looked at
# Of frames of which nothing else is known, by MigrateType. Reserved and isolated pageblocks serve anyone.
_USE_OF_TYPE: Final = np.array(
    [Use.UNMOVABLE, Use.MOVABLE, Use.RECLAIMABLE, Use.MOVABLE, Use.MOVABLE], np.int64
)
_UNKNOWN: Final = -1
# What a flag says of a frame's use; the first that is set counts.
_USE_OF_FLAGS: Final = (
    (PageFlag.PCP, Use.PER_CPU),
    (PageFlag.SLAB | PageFlag.SLOB_FREE, Use.SLAB),
    (PageFlag.PAGE_TABLE, Use.PAGE_TABLE),
    (PageFlag.VMALLOC, Use.VMALLOC),
    (PageFlag.DMA, Use.DEVICE),
    (PageFlag.ANON | PageFlag.LRU | PageFlag.KSM | PageFlag.SWAPCACHE | PageFlag.HUGETLB, Use.USER),
    (PageFlag.KERNEL | PageFlag.ZERO_PAGE, Use.KERNEL),
    (PageFlag.RESERVED, Use.RESERVED),
)


def draw_memory(state: "State", zones: "Sequence[PicturedZone]") -> MemoryPicture:
    """Return the picture of the ``zones`` of a machine's memory now."""
    cell_order = max((len(state.page) - 1).bit_length() - (MAX_CELLS.bit_length() - 1), 0)
    uses, orders = [np.zeros(0, np.uint8)], [np.zeros(0, np.uint8)]
    for zone in zones:
        use, order = _draw_zone(state, zone, cell_order)
        uses.append(use.astype(np.uint8))
        orders.append(order.astype(np.uint8))
    return MemoryPicture(
        cell_order, tuple(zones), np.concatenate(uses).tobytes(), np.concatenate(orders).tobytes()
    )


def _draw_zone(state: "State", zone: PicturedZone, cell_order: int) -> tuple[Ints, Ints]:
    """Return the use of each cell of a zone, and the order of each free one."""
    nr_cells = zone.nr_cells(cell_order)
    pfn, cell = _probes(zone, cell_order)
    use, order = _frames(state, pfn)
    counts = np.bincount(cell * len(Use) + use, minlength=nr_cells * len(Use)).reshape(nr_cells, len(Use))
    most = counts.argmax(axis=1)
    largest = np.zeros(nr_cells, np.int64)
    np.maximum.at(largest, cell, order)
    return most, np.where(most == Use.FREE, largest, 0)


def _probes(zone: PicturedZone, cell_order: int) -> tuple[Ints, Ints]:
    """Return the frames of a zone that are looked at, and the cell that each is in."""
    step_order = max(cell_order - PROBES_ORDER, 0)
    first, last = zone.start_pfn >> step_order, (zone.end_pfn - 1) >> step_order
    # The middle of each span: the first frame of a block would stand for more than itself.
    middle = (1 << step_order) >> 1
    spans = np.arange(first, last + 1, dtype=np.int64)
    pfn = np.clip((spans << step_order) + middle, zone.start_pfn, zone.end_pfn - 1)
    return pfn, (spans >> (cell_order - step_order)) - (zone.start_pfn >> cell_order)


def _frames(state: "State", pfn: Ints) -> tuple[Ints, Ints]:
    """Return the use of each frame, and of a free one the order of its block."""
    pages = np.asarray(state.page)
    page_flags = pages["page_flags"][pfn]
    use = np.full(len(pfn), _UNKNOWN, np.int64)
    for flags, means in reversed(_USE_OF_FLAGS):
        use[(page_flags & flags) != 0] = means
    order = np.zeros(len(pfn), np.int64)
    unknown = np.flatnonzero(use == _UNKNOWN)
    for candidate in range(MAX_ORDER, -1, -1):  # most free frames are in large blocks
        head = (pfn[unknown] >> candidate) << candidate
        block_order = pages["order"][head]
        is_free = ((pages["page_flags"][head] & PageFlag.BUDDY) != 0) & (block_order >= candidate)
        use[unknown[is_free]] = Use.FREE
        order[unknown[is_free]] = block_order[is_free]
        unknown = unknown[~is_free]
    use[unknown] = _pageblock_use(state, pfn[unknown])
    return use, order


def _pageblock_use(state: "State", pfn: Ints) -> Ints:
    """Return what each frame's pageblock says of its use: its migrate type, or that it is a hole."""
    blocks = np.asarray(state.pageblock)
    block = pfn >> PAGEBLOCK_ORDER
    use = _USE_OF_TYPE[blocks["migrate_type"][block]]
    return np.where(blocks["zone"][block] == NIL, Use.HOLE, use)
