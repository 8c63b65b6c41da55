"""Virtual memory areas: ranges of one address space with one set of rights, in a list by address.

    mm.first_vma -> [start, end) -> [start, end) -> NIL

Look-up tries the area that was found last, then walks the list.
# Differs from Linux: a list stands for the maple tree; a tree comes with the full VMA work.

Linux: mm/mmap.c (find_vma, split_vma), include/linux/mm_types.h (struct vm_area_struct).
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from node.pool import Pool, pool_alloc, pool_free
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

VMA = np.dtype(
    [
        ("start", np.int64),  # first address
        ("end", np.int64),  # first address behind
        ("swap_ra", np.int64),  # swap readahead: last fault, window and hits (node/swap/readahead.py)
        ("vm_flags", np.int32),  # VmFlag bits
        ("mm", np.int32),
        ("anon_vma", np.int32),  # 0 until the first anonymous page
        ("first_chain", np.int32),  # its anon_vma_chains, or NIL
        ("next", np.int32),
        ("prev", np.int32),
    ],
    align=True,
)


class VmFlag(IntEnum):
    """Bits of ``vm_flags``, with Linux's values."""

    READ = 0x1
    WRITE = 0x2
    EXEC = 0x4
    SHARED = 0x8
    GROWSDOWN = 0x100
    LOCKED = 0x2000
    MERGEABLE = -0x80000000  # bit 31 of an int32


@kernel
def find_vma(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the first VMA that ends above ``vaddr``, or NIL."""
    mm = state.mm[mm_index]
    index = mm.last_found
    if index != NIL:
        vma = state.vma[index]
        if vma.start <= vaddr < vma.end:
            return index
    index = mm.first_vma
    while index != NIL:
        vma = state.vma[index]
        if vaddr < vma.end:
            mm.last_found = index
            return index
        index = vma.next
    return NIL


@kernel
def vma_at(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the VMA that holds ``vaddr``, or NIL."""
    index = find_vma(state, mm_index, vaddr)
    if index != NIL and state.vma[index].start <= vaddr:
        return index
    return NIL


@kernel
def insert_vma(state: "State", mm_index: int, start: int, end: int, vm_flags: int) -> int:
    """Add the area [start, end), which overlaps none; return it, or NIL if there are too many."""
    index = pool_alloc(state, Pool.VMA)
    if index == NIL:
        return NIL
    mm = state.mm[mm_index]
    before = NIL
    after = mm.first_vma
    while after != NIL and state.vma[after].start < start:
        before = after
        after = state.vma[after].next
    vma = state.vma[index]
    vma.start = start
    vma.end = end
    vma.vm_flags = vm_flags
    vma.mm = mm_index
    vma.anon_vma = 0
    vma.first_chain = NIL
    vma.swap_ra = 0
    vma.prev = before
    vma.next = after
    if before == NIL:
        mm.first_vma = index
    else:
        state.vma[before].next = index
    if after != NIL:
        state.vma[after].prev = index
    mm.nr_vmas += 1
    return index


@kernel
def remove_vma(state: "State", index: int) -> None:
    """Take the area out of its address space; its anon_vma_chains are gone already."""
    vma = state.vma[index]
    mm = state.mm[vma.mm]
    if vma.prev == NIL:
        mm.first_vma = vma.next
    else:
        state.vma[vma.prev].next = vma.next
    if vma.next != NIL:
        state.vma[vma.next].prev = vma.prev
    if mm.last_found == index:
        mm.last_found = NIL
    mm.nr_vmas -= 1
    pool_free(state, Pool.VMA, index)
