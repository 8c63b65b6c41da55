"""Parts of a split huge page that hold nothing but zeroes, and are mapped, become mappings of the page of zeroes.

Much of a huge page may never have been written. Since Linux 6.12 a split gives that back: ksmd, who splits to merge one
page, does not meet the zeroes afterwards. Locked areas keep their pages.

Linux: mm/migrate.c (try_to_map_unused_to_zeropage), mm/huge_memory.c (remap_page), both of 6.12 and later.
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.page_table import pte_position
from node.hw.pte import Pte, make_pte, pte_pfn
from node.joints import flush_tlb_range, note_view_change
from node.vm.anon_vma import first_chain_at, next_chain_at
from node.vm.put_page import put_page
from node.vm.rmap import page_address_in_vma, page_remove_rmap
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL, PAGE_SHIFT
from shared.jit import kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@kernel
def _map_zero_page(state: "State", mm_index: int, position: int, vaddr: int) -> None:
    pte = state.pt_word[position]
    bits = Pte.PRESENT | Pte.USER | Pte.ACCESSED | pte & state.knob[Knob.NX_BIT]
    state.pt_word[position] = make_pte(state.knob[Knob.ZERO_PFN], bits)
    state.mm[mm_index].nr_anon -= 1
    state.mm[mm_index].nr_zero += 1
    page_remove_rmap(state, pte_pfn(pte))
    put_page(state, pte_pfn(pte))
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.READ_ONLY)


@kernel
def _in_area(state: "State", pfn: int, vma_index: int) -> None:
    vma = state.vma[vma_index]
    first = page_address_in_vma(state, vma_index, state.page[pfn].index)
    nr_mapped = 0
    for number in range(ENTRIES_PER_TABLE):
        vaddr = first + (number << PAGE_SHIFT)
        if vma.start <= vaddr < vma.end and state.page[pfn + number].content == 0:
            position = pte_position(state, state.mm[vma.mm].pgd_pfn, vaddr)
            if position != NIL:
                pte = state.pt_word[position]
                if pte & Pte.PRESENT and pte_pfn(pte) == pfn + number:
                    _map_zero_page(state, vma.mm, position, vaddr)
                    nr_mapped += 1
    if nr_mapped:
        flush_tlb_range(state, vma.mm, first, first + HUGE_PAGE_SIZE, 0)


@kernel
def map_zero_parts(state: "State", pfn: int) -> None:
    """Map the page of zeroes in place of those of 512 frames, just parted, that hold zeroes; the caller holds all."""
    head = state.page[pfn]
    last = head.index + ENTRIES_PER_TABLE - 1
    chain = first_chain_at(state, head.mapping, head.index, last)
    while chain != NIL:
        vma_index = state.anon_vma_chain[chain].vma
        chain = next_chain_at(state, chain, head.index, last)
        if not state.vma[vma_index].vm_flags & VmFlag.LOCKED:
            _in_area(state, pfn, vma_index)
