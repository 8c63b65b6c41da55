"""Page-table entries as x86-64 lays them out, and what Linux keeps in those that are not present.

    63  62..59  58..52   51 ........ 12  11..9    8 7  6 5 4   3   2   1  0
    XD  PKEY    ignored  frame number    ignored  G PS D A PCD PWT U/S RW P

Bit 63 makes an entry negative, so a frame number is masked after the shift. A swapped page's entry has P
clear; Linux 6.1 (arch/x86/include/asm/pgtable_64.h) keeps the swap type in bits 63..59 and the slot number,
complemented against L1TF, from bit 9 up to 58.
"""

from enum import IntEnum
from typing import Final

from shared.constants import PAGE_SHIFT
from shared.jit import kernel

PFN_MASK: Final = (1 << 40) - 1  # bits 51..12, after the shift
SWAP_OFFSET_SHIFT: Final = 9
SWAP_OFFSET_MASK: Final = (1 << 50) - 1
NX: Final = -(1 << 63)


class Pte(IntEnum):
    """Bits of an entry."""

    PRESENT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    WRITE_THROUGH = 1 << 3
    CACHE_DISABLE = 1 << 4
    ACCESSED = 1 << 5
    DIRTY = 1 << 6
    HUGE = 1 << 7
    GLOBAL = 1 << 8


SWAP_ENTRY_EXCLUSIVE: Final = 1 << 3  # of an entry that is not present (pte_swp_exclusive)
TABLE_BITS: Final = Pte.PRESENT | Pte.WRITE | Pte.USER | Pte.ACCESSED


@kernel
def make_pte(pfn: int, bits: int) -> int:
    """Return an entry for frame ``pfn`` with ``bits`` of Pte."""
    return (pfn << PAGE_SHIFT) | bits


@kernel
def pte_pfn(pte: int) -> int:
    """Return the frame number of a present entry."""
    return (pte >> PAGE_SHIFT) & PFN_MASK


@kernel
def make_swap_pte(slot: int, exclusive: int) -> int:
    """Return the entry of a page that is in ``slot`` of swap area 0; ``exclusive`` is 0 or SWAP_ENTRY_EXCLUSIVE."""
    return ((~slot & SWAP_OFFSET_MASK) << SWAP_OFFSET_SHIFT) | exclusive


@kernel
def is_swap_pte(pte: int) -> int:
    """Return whether the entry is a swap entry: not present and not empty."""
    return 1 if pte != 0 and not pte & Pte.PRESENT else 0


@kernel
def swap_pte_slot(pte: int) -> int:
    """Return the slot of a swap entry."""
    return ~(pte >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK
