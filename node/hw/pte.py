"""Page-table entries as x86-64 lays them out, and what Linux keeps in those that are not present.

    63  62..59  58..52   51 ........ 12  11..9    8 7  6 5 4   3   2   1  0
    XD  PKEY    ignored  frame number    ignored  G PS D A PCD PWT U/S RW P

In the entry of a 4 KiB page bit 7 is PAT; in that of a larger one PAT is bit 12, and the frame number begins
at the page's size. Bit 63 makes an entry negative, so a frame number is masked after the shift. An entry of
32-bit paging is the same up to bit 11, has its frame number in bits 31..12, and fills the lower half of its
word.

A swapped page's entry has P clear; Linux 6.1 (arch/x86/include/asm/pgtable_64.h) keeps the swap type in bits
63..59 and the slot number, complemented against L1TF, from bit 9 up to 58. An entry with P clear and bit 8 set
(_PAGE_PROTNONE) maps a page that nobody may touch.
# Differs from Linux: swap entries of 32-bit machines have the layout of 64-bit ones.
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
    HUGE = 1 << 7  # PS; in an entry of the last level, PAT
    GLOBAL = 1 << 8
    PAT_LARGE = 1 << 12  # PAT of an entry with PS set


PROT_NONE: Final = Pte.GLOBAL  # of an entry that is not present
PKEY_SHIFT: Final = 59
PKEY_MASK: Final = 15

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
    """Return whether the entry is a swap entry: not present, not empty, and no page that nobody may touch."""
    return 1 if pte != 0 and not pte & (Pte.PRESENT | Pte.GLOBAL) else 0


@kernel
def swap_pte_slot(pte: int) -> int:
    """Return the slot of a swap entry."""
    return ~(pte >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK
