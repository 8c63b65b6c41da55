"""Paging modes: how many levels a linear address has, and which bits of an entry each level reserves.

One table of descriptions stands for all modes; the walk, the kernel's page tables and ``pagefleet explain``
read it, so that none of them knows a mode by name.

    none     vaddr = paddr
    32bit    |31 PGD 22|21 PTE 12|11 offset 0|                                      4-byte entries, 4 MiB pages
    4level   |47 PGD 39|38 PUD 30|29 PMD 21|20 PTE 12|11 offset 0|                  1 GiB and 2 MiB pages
    5level   |56 PGD 48|47 P4D 39|38 PUD 30|29 PMD 21|20 PTE 12|11 offset 0|

Linux's names and Intel's: PGD is the top level whatever the mode; PML5, PML4, PDPT, PD and PT are Intel's.

In mode ``none`` there is no protection either: all programs share one address space, that of the memory.

Source: Intel SDM volume 3, 4.1 (modes), tables 4-4 to 4-20 (entries), 4.1.4 (M, the physical width).
# Differs from Linux: there is no PAE paging (three levels), which Linux uses on 32-bit processors with NX.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.hw.pte import NX, Pte
from shared.constants import PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

PAGING_LEVEL = np.dtype(
    [
        ("shift", np.int64),  # of the first bit that indexes this level's tables
        ("index_mask", np.int64),
        ("reserved", np.int64),  # bits that must be 0 in an entry that leads to a table
        ("reserved_leaf", np.int64),  # bits that must be 0 in an entry that maps a page
        ("leaf", np.int64),  # 1: an entry with PS set maps a page
        ("page_size", np.int64),  # PageSize of the pages that such an entry maps
    ],
    align=True,
)


class PagingMode(IntEnum):
    """Values of Knob.PAGING_MODE."""

    NONE = 0
    BITS_32 = 1
    LEVEL_4 = 2
    LEVEL_5 = 3


class AccessKind(IntEnum):
    """What an access does."""

    READ = 0
    WRITE = 1
    EXECUTE = 2  # an instruction fetch


class PageSize(IntEnum):
    """Sizes of pages, by the level whose entry maps them. In 32-bit mode LARGE is 4 MiB."""

    SMALL = 0
    LARGE = 1
    GIGANTIC = 2
    NR = 3


@dataclass(frozen=True, slots=True)
class Level:
    """One level of page tables."""

    linux: str
    intel: str
    shift: int
    page_name: str | None  # what an entry can map itself; of the last level always
    page_size: PageSize = PageSize.SMALL


@dataclass(frozen=True, slots=True)
class Mode:
    """A paging mode; ``levels`` from the top down."""

    name: str
    linear_bits: int
    table_shift: int  # entries of a table, as a power of two
    entry_bytes: int
    max_physical_bits: int
    levels: tuple[Level, ...]


_PT: Final = Level("PTE", "PT", 12, "4KiB")
_PD: Final = Level("PMD", "PD", 21, "2MiB", PageSize.LARGE)
_PDPT: Final = Level("PUD", "PDPT", 30, "1GiB", PageSize.GIGANTIC)

PAGING_MODES: Final = {
    PagingMode.NONE: Mode("none", 52, 9, 0, 52, ()),
    PagingMode.BITS_32: Mode(
        "32bit",
        32,
        10,
        4,
        40,  # with PSE-36
        (Level("PGD", "PD", 22, "4MiB", PageSize.LARGE), _PT),
    ),
    PagingMode.LEVEL_4: Mode("4level", 48, 9, 8, 52, (Level("PGD", "PML4", 39, None), _PDPT, _PD, _PT)),
    PagingMode.LEVEL_5: Mode(
        "5level",
        57,
        9,
        8,
        52,
        (Level("PGD", "PML5", 48, None), Level("P4D", "PML4", 39, None), _PDPT, _PD, _PT),
    ),
}
MODE_NAMES: Final = {mode.name: number for number, mode in PAGING_MODES.items()}
MAX_LEVELS: Final = 5
MIN_LEVELS_64: Final = 4  # of modes with 8-byte entries

_ADDRESS_END: Final = 52  # bits 62..52 of an entry are ignored or protection keys
_PSE36_SHIFT: Final = 13  # where a 4 MiB page's entry keeps bits 39..32 of its address
_PSE36_HIGH: Final = 32


def _ones(first: int, behind: int) -> int:
    """Return a mask of bits first..behind-1."""
    return (1 << behind) - (1 << first) if behind > first else 0


def reserved_bits(mode: PagingMode, level: int, *, leaf: bool, physical_bits: int, nx: bool = True) -> int:
    """Return the reserved bits of an entry as a signed 64-bit mask.

    ``leaf`` says that the entry maps a page: of an upper level, one with PS set. ``physical_bits`` is M. Where
    a level cannot map pages, PS itself is reserved. Of 32-bit paging only entries of 4 MiB pages have any.
    """
    description = PAGING_MODES[mode]
    here = description.levels[level]
    is_last = level == len(description.levels) - 1
    if mode == PagingMode.BITS_32:
        # Bit 21, and of bits 20..13 those that stand for address bits from M on (table 4-4).
        if is_last or not leaf:
            return 0
        return (1 << (here.shift - 1)) | _ones(
            _PSE36_SHIFT + min(physical_bits, 40) - _PSE36_HIGH, here.shift - 1
        )
    reserved = _ones(physical_bits, _ADDRESS_END)
    if leaf and not is_last:
        reserved |= _ones(PAGE_SHIFT + 1, here.shift)  # bit 12 is PAT
    if not leaf and here.page_name is None:
        reserved |= Pte.HUGE
    return reserved | (0 if nx else NX)


def setup_paging(
    state: "State", mode: PagingMode, physical_bits: int, *, gigantic: bool = True, nx: bool = True
) -> None:
    """Make ``mode`` the machine's: ``state.paging_level`` and the knobs that say it in short.

    ``gigantic``: the processor has 1 GiB pages; ``nx``: EFER.NXE is set.
    """
    description = PAGING_MODES[mode]
    state.knob[Knob.PAGING_MODE] = mode
    state.knob[Knob.NR_LEVELS] = len(description.levels)
    state.knob[Knob.TABLE_SHIFT] = description.table_shift
    state.knob[Knob.LINEAR_BITS] = description.linear_bits
    state.knob[Knob.PHYSICAL_BITS] = physical_bits
    for index, level in enumerate(description.levels):
        record = state.paging_level[index]
        record.shift = level.shift
        record.index_mask = (1 << description.table_shift) - 1
        record.page_size = level.page_size
        can_map = level.page_name is not None and (gigantic or level.page_size != PageSize.GIGANTIC)
        record.leaf = int(can_map)
        record.reserved = reserved_bits(mode, index, leaf=False, physical_bits=physical_bits, nx=nx)
        record.reserved_leaf = reserved_bits(mode, index, leaf=True, physical_bits=physical_bits, nx=nx)
        if not can_map and level.page_name is not None:
            record.reserved |= Pte.HUGE


def is_canonical(mode: PagingMode, address: int) -> bool:
    """Return whether an unsigned address is one that the mode translates; of 32-bit paging, whether it fits."""
    bits = PAGING_MODES[mode].linear_bits
    if mode in (PagingMode.NONE, PagingMode.BITS_32):
        return 0 <= address < 1 << bits
    return address < 1 << (bits - 1) or (1 << 64) - (1 << (bits - 1)) <= address < 1 << 64
