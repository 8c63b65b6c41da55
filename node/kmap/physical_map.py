"""The physical map: what the frames of a machine hold after boot.

    6.1       0       1 MiB    16 MiB                                                           top of RAM
              |firmware| free  |text|rodata|data, bss| boot allocations | free ...     | descriptors |

    lecture   0       1 MiB                           12 MiB  16 MiB
              |firmware|text|rodata|data, bss|         free   | boot allocations | free ...

Nobody can allocate what is named here: the first MiB belongs to the firmware and to old devices, then the
kernel's image (from CONFIG_PHYSICAL_START on in 6.1, from 1 MiB on as every course draws it), what it took while it
booted (its page tables and per-CPU pages are there: node/kmap/kernel_tables.py), and 64 bytes of descriptor
for each frame, at the top of each NUMA node. A 32-bit kernel must reach the descriptors through lowmem, so they are
at lowmem's top, and what is above is high memory.

Source: arch/x86/kernel/vmlinux.lds.S and arch/x86/mm/init_64.c (mark_rodata_ro) of 6.1: text, read-only and
other data begin at 2 MiB borders each.
# Differs from Linux: sections have round sizes, and the image is followed at once by what was allocated at boot.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from node.counters import Era
from node.hw.paging import PagingMode
from node.kmap.memory_map import DEFAULT_PAGE_OFFSET, era_number, max_lowmem_bytes
from node.kmap.ram_map import RamMap, ram_map
from shared.constants import CACHE_LINE_BYTES, MIB, PAGE_SIZE

PAGES_PER_MIB: Final = MIB // PAGE_SIZE
FIRMWARE_PAGES: Final = PAGES_PER_MIB
# What Linux 6.1.0-56-amd64 of Debian keeps of a 512 MiB machine for itself while it boots: of its 131072
# frames 117104 are managed; 256 are below 1 MiB, 2048 hold descriptors, and this many are the rest.
KERNEL_PAGES: Final = 11664


class Holder(StrEnum):
    """Who has a range of frames."""

    FIRMWARE = "firmware"
    TEXT = "kernel text"
    RODATA = "kernel rodata"
    DATA = "kernel data"
    BOOT = "boot allocations"
    DESCRIPTORS = "descriptors"
    FREE = "free"
    HIGH = "free high memory"
    HOLE = "hole"
    DEVICE = "device memory"


IMAGE: Final = (Holder.TEXT, Holder.RODATA, Holder.DATA)
UNRESERVED: Final = (Holder.FREE, Holder.HIGH)


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frames ``first`` to ``behind`` (exclusive), and who has them."""

    holder: Holder
    first: int
    behind: int

    @property
    def nr_frames(self) -> int:
        """Frames in the range."""
        return self.behind - self.first

    @property
    def reserved(self) -> bool:
        """Return whether nobody can allocate them."""
        return self.holder not in UNRESERVED


@dataclass(frozen=True, slots=True)
class _Image:
    """Where an era's kernel lies: first frame, then frames of each section; where it allocates, and how much."""

    first: int
    text: int
    rodata: int
    data: int
    boot_first: int
    boot: int


# 6.1: 14 MiB of text and 9 of read-only data as Debian's has, rounded to the 2 MiB borders between them; the rest
# of its 45.6 MiB is half bss, half allocated while it boots.
_TEXT_61: Final = 14 * PAGES_PER_MIB
_RODATA_61: Final = 10 * PAGES_PER_MIB
_DATA_61: Final = 12 * PAGES_PER_MIB
_BOOT_61: Final = KERNEL_PAGES - _TEXT_61 - _RODATA_61 - _DATA_61
_FIRST_61: Final = 16 * PAGES_PER_MIB  # CONFIG_PHYSICAL_START
_IMAGES: Final = {
    Era.LINUX_6_1: _Image(
        _FIRST_61, _TEXT_61, _RODATA_61, _DATA_61, _FIRST_61 + KERNEL_PAGES - _BOOT_61, _BOOT_61
    ),
    # Lecture: half of that, so that most of a kernel's image and some memory for DMA fit below 16 MiB.
    Era.LECTURE: _Image(
        FIRMWARE_PAGES, 7 * PAGES_PER_MIB, 2 * PAGES_PER_MIB, 2 * PAGES_PER_MIB, 16 * PAGES_PER_MIB, _BOOT_61
    ),
}


def descriptor_pages(nr_frames: int) -> int:
    """Return the frames that hold the descriptors of ``nr_frames``: 64 bytes each."""
    return -(-nr_frames * CACHE_LINE_BYTES // PAGE_SIZE)


def lowmem_pages(era: str, mode: PagingMode, nr_frames: int, page_offset: int = DEFAULT_PAGE_OFFSET) -> int:
    """Return how many frames the kernel maps directly: all, but on a 32-bit machine."""
    if mode == PagingMode.BITS_32:
        return min(nr_frames, max_lowmem_bytes(era, page_offset) // PAGE_SIZE)
    return nr_frames


def _kernel_ranges(image: _Image) -> list[FrameRange]:
    """Return what firmware and kernel took before the first frame was allocated, ascending."""
    taken = [FrameRange(Holder.FIRMWARE, 0, FIRMWARE_PAGES)]
    first = image.first
    for holder, size in zip(IMAGE, (image.text, image.rodata, image.data), strict=True):
        taken.append(FrameRange(holder, first, first + size))
        first += size
    taken.append(FrameRange(Holder.BOOT, image.boot_first, image.boot_first + image.boot))
    return taken


def _descriptor_ranges(ram: RamMap, lowmem: int) -> list[FrameRange]:
    """Return the descriptors of each node, at the top of its RAM that the kernel maps."""
    found = []
    for nid in range(len(ram.nodes)):
        nr_pages = sum(descriptor_pages(behind - first) for first, behind in ram.ram_of(nid))
        behind = max(
            min(piece[1], lowmem, ram.nodes[nid][1]) for piece in ram.ram if piece[0] < ram.nodes[nid][1]
        )
        found.append(FrameRange(Holder.DESCRIPTORS, behind - nr_pages, behind))
    return found


def physical_map(
    era: str,
    mode: PagingMode,
    nr_frames: int,
    page_offset: int = DEFAULT_PAGE_OFFSET,
    ram: RamMap | None = None,
) -> tuple[FrameRange, ...]:
    """Return the ranges of all frames, ascending, without gaps. ``ram`` None is one node, without holes.

    Raises ValueError if the machine has too little memory for its kernel.
    """
    ram = ram or ram_map(nr_frames, has_hole=False)
    lowmem = lowmem_pages(era, mode, nr_frames, page_offset)
    taken = _kernel_ranges(_IMAGES[era_number(era)])
    descriptors = _descriptor_ranges(ram, lowmem)
    if descriptors[0].first < taken[-1].behind:
        need = (taken[-1].behind + descriptors[0].nr_frames) // PAGES_PER_MIB + 1
        mapped = "" if lowmem == nr_frames else " that the kernel can map"
        raise ValueError(
            f"memory: {lowmem // PAGES_PER_MIB}MiB{mapped} is less than the {need}MiB that its kernel needs"
        )
    taken += descriptors
    taken += [FrameRange(Holder.HOLE, *hole) for hole in ram.holes]
    if ram.device:
        taken.append(FrameRange(Holder.DEVICE, *ram.device))
        if ram.ram[-1][1] < ram.device[0]:
            taken.append(FrameRange(Holder.HOLE, ram.ram[-1][1], ram.device[0]))
    found = []
    behind = 0
    for one in sorted(taken, key=lambda one: one.first):
        if behind < one.first:
            found.append(FrameRange(Holder.FREE if behind < lowmem else Holder.HIGH, behind, one.first))
        found.append(one)
        behind = one.behind
    if behind < nr_frames:
        found.append(FrameRange(Holder.HIGH, behind, nr_frames))
    return tuple(found)


def frames_of(holder: Holder, ranges: tuple[FrameRange, ...]) -> FrameRange:
    """Return the first range of a holder. Raises KeyError if it has none."""
    for one in ranges:
        if one.holder == holder:
            return one
    raise KeyError(holder)


def zero_pfn(ranges: tuple[FrameRange, ...]) -> int:
    """Return the frame of the shared page of zeroes: the first of the kernel's data (empty_zero_page, in bss)."""
    return frames_of(Holder.DATA, ranges).first
