"""Entries of the master kernel page table for areas, and the tables that they need.

    SWAPPER_PGD -> ... -> PTE      written when an area is mapped, cleared when it is unmapped
                   |
                   made on demand, and kept: other areas will lie there

Only the master table is written. Processes share the tables below its top level; an entry of the top level itself
is there from boot (6.1: node/kmap/kernel_tables.py) or is copied by whoever misses it (node/kmap/kernel_access.py).
Entries have A and D set from the start, are global unless page-table isolation is on, and forbid fetches unless
they map a module's text.

Clearing entries flushes nothing: that is for whoever takes the addresses back (node/kalloc/vmap_space.py).

Linux: mm/vmalloc.c (vmap_pages_pte_range, vunmap_pte_range), arch/x86/include/asm/pgtable_types.h (PAGE_KERNEL).
# Differs from Linux: areas are mapped by 4 KiB pages alone (no VM_ALLOW_HUGE_VMAP, no large pages of ioremap), and
the tables of the second level do not count in nr_page_table_pages.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.content import PATTERN_TABLE, generated
from node.counters import Current, Knob
from node.hw.cost import Cost
from node.hw.memory_type import MemoryType
from node.hw.page_table import entry_position, is_large_leaf, leaf_position
from node.hw.pte import TABLE_BITS, Pte, make_pte, pte_pfn
from node.joints import alloc_frames
from node.kalloc.vmap_area import VmapStat
from node.phys.page import PageFlag
from shared.constants import NIL
from shared.gfp_flags import GFP_KERNEL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

_MAPPED: Final = Pte.PRESENT | Pte.ACCESSED | Pte.DIRTY
KERNEL_TABLE_BITS: Final = TABLE_BITS | Pte.DIRTY  # _PAGE_TABLE


class KernelProt(IntEnum):
    """What the kernel may do with pages that it maps."""

    READ_WRITE = 0  # PAGE_KERNEL
    READ_EXECUTE = 1  # PAGE_KERNEL_ROX


@kernel
def kernel_prot_bits(state: "State", prot: int) -> int:
    """Return the bits of an entry for pages of a KernelProt."""
    bits = _MAPPED if state.knob[Knob.PTI] else _MAPPED | Pte.GLOBAL
    if prot == KernelProt.READ_EXECUTE:
        return bits
    return bits | Pte.WRITE | state.knob[Knob.NX_BIT]


@kernel
def memory_type_bits(kind: int) -> int:
    """Return the bits by which a 4 KiB page's entry chooses a MemoryType from the PAT that Linux loads; NIL if none.

    Linux: arch/x86/mm/init.c (__cachemode2pte_tbl), with the types of node/hw/memory_type.py.
    """
    if kind == MemoryType.WB:
        return 0
    if kind == MemoryType.WC:
        return Pte.WRITE_THROUGH
    if kind == MemoryType.UC_MINUS:
        return Pte.CACHE_DISABLE
    if kind == MemoryType.UC:
        return Pte.CACHE_DISABLE | Pte.WRITE_THROUGH
    if kind == MemoryType.WP:
        return Pte.HUGE | Pte.WRITE_THROUGH  # that bit is PAT in an entry of the last level
    if kind == MemoryType.WT:
        return Pte.HUGE | Pte.CACHE_DISABLE | Pte.WRITE_THROUGH
    return NIL


@kernel
def _new_kernel_table(state: "State") -> int:
    """Return a frame that holds an empty table of the kernel's own, or NIL (pte_alloc_one_kernel)."""
    pfn = alloc_frames(state, 0, GFP_KERNEL)
    if pfn == NIL:
        return NIL
    page = state.page[pfn]
    page.page_flags |= PageFlag.PAGE_TABLE | PageFlag.KERNEL
    page.content = generated(PATTERN_TABLE, state.knob[Knob.CONTENT_KEY], pfn)
    shift = state.knob[Knob.TABLE_SHIFT]
    for position in range(pfn << shift, (pfn + 1) << shift):
        state.pt_word[position] = 0
    state.vmap_stat[VmapStat.KERNEL_TABLES] += 1
    return pfn


@kernel
def _make_kernel_entry(state: "State", vaddr: int) -> int:
    """Return where the last level's entry for a kernel address stands, making tables; NIL if that cannot be."""
    table = state.knob[Knob.SWAPPER_PGD]
    last = state.knob[Knob.NR_LEVELS] - 1
    for level in range(last):
        position = entry_position(state, table, vaddr, level)
        word = state.pt_word[position]
        if word & Pte.PRESENT:
            if is_large_leaf(state, level, word):
                return NIL
            table = pte_pfn(word)
            continue
        table = _new_kernel_table(state)
        if table == NIL:
            return NIL
        state.pt_word[position] = make_pte(table, KERNEL_TABLE_BITS)
    return entry_position(state, table, vaddr, last)


@kernel
def map_kernel_page(state: "State", vaddr: int, pfn: int, bits: int) -> int:
    """Map a frame at a kernel address by an entry with ``bits``; return 0, or NIL without memory for a table."""
    position = _make_kernel_entry(state, vaddr)
    if position == NIL:
        return NIL
    state.pt_word[position] = make_pte(pfn, bits)
    state.current[Current.CLOCK_PS] += state.cost[Cost.VMAP_PAGE]
    return 0


@kernel
def unmap_kernel_page(state: "State", vaddr: int) -> int:
    """Clear the entry of a kernel address; return the frame that it mapped, or NIL if it mapped none."""
    position = leaf_position(state, state.knob[Knob.SWAPPER_PGD], vaddr, state.knob[Knob.NR_LEVELS] - 1)
    if position == NIL:
        return NIL
    word = state.pt_word[position]
    state.pt_word[position] = 0
    state.current[Current.CLOCK_PS] += state.cost[Cost.VMAP_PAGE]
    return pte_pfn(word) if word & Pte.PRESENT else NIL
