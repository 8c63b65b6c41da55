"""The bytes of slabs: reading, filling and comparing them in ``state.slab_word``, eight to a word.

    paddr  ...40 41 42 43 44 45 46 47 | 48 ...
           [ byte 0 is the lowest     ]   one word, little-endian, signed

A run of equal bytes is filled word by word; the first and the last word may be parts.
"""

from typing import TYPE_CHECKING, Final

from node.kalloc.kmem_cache import WORD_BYTES, WORD_SHIFT
from node.phys.page import PageFlag
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import cold_kernel, kernel
from shared.wrap64 import mul64, shift_left64

if TYPE_CHECKING:
    from node.state import State

BYTE_BITS: Final = 8
BYTE_MASK: Final = 0xFF
WORD_MASK: Final = WORD_BYTES - 1
EACH_BYTE: Final = 0x0101010101010101


@kernel
def _part(first: int, behind: int) -> int:
    """Return the mask of bytes [first, behind) of a word."""
    mask = -1 if behind == WORD_BYTES else (1 << (behind * BYTE_BITS)) - 1
    return mask & shift_left64(-1, first * BYTE_BITS)


@cold_kernel
def clear_frames(state: "State", pfn: int, nr_frames: int) -> None:
    """Make all bytes of frames that become a slab 0.

    What an earlier slab left there is in no checkpoint, so a later one must not see it.
    """
    for word in range(pfn * ENTRIES_PER_TABLE, (pfn + nr_frames) * ENTRIES_PER_TABLE):
        state.slab_word[word] = 0


@kernel
def byte_at(state: "State", paddr: int) -> int:
    """Return one byte, 0..255."""
    return (state.slab_word[paddr >> WORD_SHIFT] >> ((paddr & WORD_MASK) * BYTE_BITS)) & BYTE_MASK


@cold_kernel
def fill_bytes(state: "State", paddr: int, nr_bytes: int, value: int) -> None:
    """Write ``value``, 0..255, over ``nr_bytes`` from ``paddr``."""
    pattern = mul64(value, EACH_BYTE)
    behind = paddr + nr_bytes
    while paddr < behind:
        first = paddr & WORD_MASK
        count = min(WORD_BYTES - first, behind - paddr)
        mask = _part(first, first + count)
        index = paddr >> WORD_SHIFT
        state.slab_word[index] = (state.slab_word[index] & ~mask) | (pattern & mask)
        paddr += count


@cold_kernel
def first_unlike(state: "State", paddr: int, nr_bytes: int, value: int) -> int:
    """Return the address of the first of ``nr_bytes`` that is not ``value``, or NIL (memchr_inv)."""
    pattern = mul64(value, EACH_BYTE)
    behind = paddr + nr_bytes
    while paddr < behind:
        first = paddr & WORD_MASK
        count = min(WORD_BYTES - first, behind - paddr)
        if (state.slab_word[paddr >> WORD_SHIFT] ^ pattern) & _part(first, first + count):
            while byte_at(state, paddr) == value:
                paddr += 1
            return paddr
        paddr += count
    return NIL


@cold_kernel
def write_slab_bytes(state: "State", paddr: int, nr_bytes: int, value: int) -> int:
    """Write ``value`` over bytes of slabs, up to the first frame that is none; return how many bytes."""
    written = 0
    while written < nr_bytes:
        at = paddr + written
        pfn = at >> PAGE_SHIFT
        if pfn < 0 or pfn >= len(state.page) or not state.page[pfn].page_flags & PageFlag.SLAB:
            break
        count = min(nr_bytes - written, PAGE_SIZE - (at & (PAGE_SIZE - 1)))
        fill_bytes(state, at, count, value & BYTE_MASK)
        written += count
    return written
