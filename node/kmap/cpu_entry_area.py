"""cpu_entry_area: the few pages that a processor needs to get from user mode into the kernel.

    base     | IDT | CPU 0 | CPU 1 | CPU 2 ...

    6.1      | GDT | entry stack | TSS x5 |g| #DF x2 |g| NMI x2 |g| #DB x2 |g| #MC x2 |g,g: VC | debug store | ..
    lecture  | GDT | entry stack | TSS x3 | trampoline | exception stacks x5          | debug store | ..
    32-bit   | GDT |g| entry stack |g| #DF stack | TSS x5                             | debug store | ..

It is an alias: the pages themselves are per-CPU data. Being apart from everything else, it is the one part of
the kernel that the user copy of a page table maps under KPTI, so its pages may be global. The user copy of 4.15
maps no text but the trampoline in here, which loads CR3 and jumps on; 6.1 maps its entry text instead.

Guard pages (g) and the debug store's buffers are not mapped, but their addresses are taken.

Sources: arch/x86/include/asm/cpu_entry_area.h and arch/x86/mm/cpu_entry_area.c of 6.1 and of 4.15; a CPU's part
is 0x3b000 bytes in the former, 0x2c000 in the latter.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from node.hw.paging import PagingMode


class Protection(IntEnum):
    """How a page of the area is mapped."""

    READ_ONLY = 0
    READ_WRITE = 1
    EXECUTE = 2


class Part(StrEnum):
    """Pages of a CPU's part."""

    GDT = "GDT"
    ENTRY_STACK = "entry stack"
    TSS = "TSS"
    TRAMPOLINE = "entry trampoline"
    DOUBLE_FAULT_STACK = "#DF stack"
    NMI_STACK = "NMI stack"
    DEBUG_STACK = "#DB stack"
    MACHINE_CHECK_STACK = "#MC stack"
    EXCEPTION_STACKS = "exception stacks"
    DEBUG_STORE = "debug store"


@dataclass(frozen=True, slots=True)
class Pages:
    """Consecutive pages of one part; ``offset`` counts pages from the start of the CPU's."""

    part: Part
    offset: int
    nr_pages: int
    protection: Protection


@dataclass(frozen=True, slots=True)
class EntryAreaLayout:
    """A CPU's part: its pages that are mapped, and how many addresses it takes in all, in pages."""

    pages: tuple[Pages, ...]
    nr_pages: int


_RO: Final = Protection.READ_ONLY
_RW: Final = Protection.READ_WRITE
NR_IDT_PAGES: Final = 1  # before the first CPU's part, read-only

# Stacks have 2 pages (EXCEPTION_STKSZ) and a guard page before each; those of #VC, for encrypted guests, are
# not mapped. Then the debug store and 2 * 16 pages of buffers.
_LINUX_6_1: Final = EntryAreaLayout(
    (
        Pages(Part.GDT, 0, 1, _RO),
        Pages(Part.ENTRY_STACK, 1, 1, _RW),
        Pages(Part.TSS, 2, 5, _RO),
        Pages(Part.DOUBLE_FAULT_STACK, 8, 2, _RW),
        Pages(Part.NMI_STACK, 11, 2, _RW),
        Pages(Part.DEBUG_STACK, 14, 2, _RW),
        Pages(Part.MACHINE_CHECK_STACK, 17, 2, _RW),
        Pages(Part.DEBUG_STORE, 26, 1, _RW),
    ),
    59,
)
_LECTURE: Final = EntryAreaLayout(
    (
        Pages(Part.GDT, 0, 1, _RO),
        Pages(Part.ENTRY_STACK, 1, 1, _RW),
        Pages(Part.TSS, 2, 3, _RO),
        Pages(Part.TRAMPOLINE, 5, 1, Protection.EXECUTE),
        Pages(Part.EXCEPTION_STACKS, 6, 5, _RW),
        Pages(Part.DEBUG_STORE, 11, 1, _RW),
    ),
    44,
)
# A task gate writes to the GDT and the TSS, so 32-bit kernels map them for writing.
_BITS_32: Final = EntryAreaLayout(
    (
        Pages(Part.GDT, 0, 1, _RW),
        Pages(Part.ENTRY_STACK, 2, 1, _RW),
        Pages(Part.DOUBLE_FAULT_STACK, 4, 1, _RW),
        Pages(Part.TSS, 5, 5, _RW),
        Pages(Part.DEBUG_STORE, 10, 1, _RW),
    ),
    43,
)
_NONE: Final = EntryAreaLayout((), 0)


def entry_area_layout(era: str, mode: PagingMode) -> EntryAreaLayout:
    """Return what a CPU's part holds; nothing on the lecture's 32-bit kernel, which is older than the area."""
    if mode == PagingMode.BITS_32:
        return _NONE if era == "lecture" else _BITS_32
    return _LECTURE if era == "lecture" else _LINUX_6_1


def entry_area_pages(era: str, mode: PagingMode, cpus: int) -> int:
    """Return how many pages of addresses the whole area takes."""
    return NR_IDT_PAGES + cpus * entry_area_layout(era, mode).nr_pages


def entry_area_page(era: str, mode: PagingMode, cpu: int, part: Part) -> int:
    """Return the number of the first page of a CPU's ``part``, counted from the start of the area.

    Raises KeyError if the era's area has no such part.
    """
    layout = entry_area_layout(era, mode)
    for pages in layout.pages:
        if pages.part == part:
            return NR_IDT_PAGES + cpu * layout.nr_pages + pages.offset
    raise KeyError(part)
