"""The RAM map: which frame numbers are memory at all, on which NUMA node, and what a device brings.

    0                      3 GiB      4 GiB                                        top
    |        RAM           |   hole   |        RAM        |        RAM             | device memory |
    |----------- node 0 ------------------------|----------- node 1 ---------------|

A PC with more than 3.5 GiB moves what does not fit below 3 GiB behind 4 GiB, because devices have their registers
there. A guest's frame numbers have no hole, since they are those that its host counts; nor has a machine with
32-bit paging, which could not reach what was moved. Nodes share the memory evenly, to whole pageblocks.

Source: QEMU's hw/i386/pc_piix.c (lowmem 3 GiB if RAM is at least 3.5 GiB).
# Differs from Linux: memory is never hot-added; a node is one range, and its CPUs are consecutive.
"""

from dataclasses import dataclass
from typing import Final

from node.phys.zone import PAGEBLOCK_PAGES
from shared.constants import GIB, MIB, PAGE_SIZE

LOW_RAM_PAGES: Final = 3 * GIB // PAGE_SIZE
HOLE_FROM_PAGES: Final = (3 * GIB + 512 * MIB) // PAGE_SIZE
HIGH_RAM_PFN: Final = 4 * GIB // PAGE_SIZE
# The first frame (the BIOS's data, which Linux never frees) is in no zone, and above 639 KiB no RAM is.
FIRST_PFN: Final = 1
CONVENTIONAL_PAGES: Final = 0x9FC00 // PAGE_SIZE
LEGACY_END_PFN: Final = MIB // PAGE_SIZE

Piece = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RamMap:
    """Frame numbers of a machine. Ranges are (first, behind)."""

    ram: tuple[Piece, ...]  # ascending
    nodes: tuple[Piece, ...]  # the frame numbers of each node, ascending, without gaps
    device: Piece | None = None  # memory of ZONE_DEVICE, at the end

    @property
    def nr_frames(self) -> int:
        """Frame numbers, holes included."""
        return self.device[1] if self.device else self.ram[-1][1]

    @property
    def holes(self) -> tuple[Piece, ...]:
        """Ranges between RAM that hold none."""
        return tuple((low[1], high[0]) for low, high in zip(self.ram, self.ram[1:], strict=False))

    def ram_of(self, nid: int) -> tuple[Piece, ...]:
        """Return the ranges of RAM, or of device memory, of a node."""
        first, behind = self.nodes[nid]
        pieces = self.ram if self.device is None else (*self.ram, self.device)
        cut = [(max(one[0], first), min(one[1], behind)) for one in pieces]
        return tuple(one for one in cut if one[0] < one[1])


def ram_map(nr_pages: int, *, has_hole: bool, nr_nodes: int = 1, device_pages: int = 0) -> RamMap:
    """Return where ``nr_pages`` of RAM lie.

    Raises ValueError, in one line, if there are more nodes than that has pageblocks.
    """
    if nr_nodes > 1 and nr_nodes * PAGEBLOCK_PAGES > nr_pages:
        raise ValueError(f"numa.nodes: {nr_nodes} nodes are more than {nr_pages} frames can be shared by")
    ram: tuple[Piece, ...] = ((0, nr_pages),)
    if has_hole and nr_pages >= HOLE_FROM_PAGES:
        ram = ((0, LOW_RAM_PAGES), (HIGH_RAM_PFN, HIGH_RAM_PFN + nr_pages - LOW_RAM_PAGES))
    top = ram[-1][1]
    device = None
    if device_pages:
        first = -(-top // PAGEBLOCK_PAGES) * PAGEBLOCK_PAGES
        device = (first, first + device_pages)
    ends = [_end_of_share(ram, nr_pages * share // nr_nodes) for share in range(1, nr_nodes)]
    ends.append(device[1] if device else top)
    return RamMap(ram, tuple(zip([0, *ends[:-1]], ends, strict=True)), device)


def _end_of_share(ram: tuple[Piece, ...], nr_pages: int) -> int:
    """Return the frame number, at a pageblock's border, below which about ``nr_pages`` of RAM lie."""
    nr_pages = nr_pages // PAGEBLOCK_PAGES * PAGEBLOCK_PAGES
    for first, behind in ram:
        if nr_pages <= behind - first:
            return first + nr_pages
        nr_pages -= behind - first
    return ram[-1][1]


def nid_of_cpu(cpu: int, nr_cpus: int, nr_nodes: int) -> int:
    """Return the node of a CPU: consecutive CPUs share one, as evenly as possible."""
    return cpu * nr_nodes // nr_cpus
