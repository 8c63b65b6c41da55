"""What a machine shows of itself at a sampled time: the files of /proc, and a picture of its physical memory.

    Machine.look() -> Look --encode_look--> bytes, compressed --> run directory --decode_look--> proc, report

A picture divides each zone into *cells* of 2**cell_order frames, as coarse as it takes to need few of them, and
says of each cell what most of its frames are for. A free cell also has the order of the largest free block that
it is part of, so that fragmentation shows.

    zone DMA32   | R R K K U U F5 F5 F10 F10 F10 ...      a use (and an order) a cell
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import msgpack
import zstandard

LEVEL: Final = 1  # of zstandard
MAX_LOOK_BYTES: Final = 64 << 20  # uncompressed; a machine's texts are some tens of KiB


class Use(IntEnum):
    """What frames are for; of two that are equally common in a cell, the lower one is shown."""

    HOLE = 0  # there is no frame
    RESERVED = 1  # firmware, the kernel's image, the frame descriptors
    FREE = 2
    PER_CPU = 3  # free, on a CPU's own list
    USER = 4  # anonymous, or of the page cache
    PAGE_TABLE = 5
    SLAB = 6
    VMALLOC = 7
    KERNEL = 8
    DEVICE = 9  # held by a driver
    MOVABLE = 10  # none of those above, in a pageblock of that type
    UNMOVABLE = 11
    RECLAIMABLE = 12


@dataclass(frozen=True, slots=True)
class PicturedZone:
    """One zone of a picture: frames ``start_pfn`` to ``end_pfn`` (exclusive)."""

    node: int
    name: str
    start_pfn: int
    end_pfn: int

    def nr_cells(self, cell_order: int) -> int:
        """Return how many cells the zone has; its first and last may be parts of one."""
        return (self.end_pfn - 1 >> cell_order) - (self.start_pfn >> cell_order) + 1


@dataclass(frozen=True, slots=True)
class MemoryPicture:
    """A machine's physical memory at one time."""

    cell_order: int
    zones: tuple[PicturedZone, ...]
    uses: bytes  # [cell, zone after zone] Use
    orders: bytes  # [cell, zone after zone] of a free cell's largest block; 0 for others


@dataclass(frozen=True, slots=True)
class Look:
    """All that is kept of one machine at one time."""

    proc: dict[str, str] = field(default_factory=dict)  # text by path
    picture: MemoryPicture | None = None


def encode_look(look: Look) -> bytes:
    """Return a look as bytes."""
    picture = look.picture
    drawn = None
    if picture is not None:
        zones = [[zone.node, zone.name, zone.start_pfn, zone.end_pfn] for zone in picture.zones]
        drawn = [picture.cell_order, zones, picture.uses, picture.orders]
    return zstandard.ZstdCompressor(level=LEVEL).compress(msgpack.packb([look.proc, drawn]))


def decode_look(data: bytes) -> Look:
    """Return what ``encode_look`` was given. Raises ``ValueError`` for bytes that are no look."""
    try:
        unpacked = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_LOOK_BYTES)
        texts, drawn = msgpack.unpackb(unpacked)
        proc = {str(path): str(text) for path, text in texts.items()}
        return Look(proc, None if drawn is None else _picture(*drawn))
    except (zstandard.ZstdError, msgpack.UnpackException, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"not a look at a machine: {error}") from None


def _picture(cell_order: int, zones: list[Any], uses: bytes, orders: bytes) -> MemoryPicture:
    pictured = tuple(PicturedZone(*zone) for zone in zones)
    nr_cells = sum(zone.nr_cells(cell_order) for zone in pictured)
    if len(uses) != nr_cells or len(orders) != nr_cells:
        raise ValueError(f"{len(uses)} uses and {len(orders)} orders for {nr_cells} cells")
    return MemoryPicture(cell_order, pictured, uses, orders)
