"""Parts of a split huge page that hold nothing but zeroes, and are mapped, become mappings of the page of zeroes.

Much of a huge page may never have been written. Since Linux 6.12 a split gives that back: ksmd, who splits to merge one
page, does not meet the zeroes afterwards. Locked areas keep their pages.

Linux: mm/migrate.c (try_to_map_unused_to_zeropage), mm/huge_memory.c (remap_page), both of 6.12 and later.
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.pte import Pte, make_pte, pte_pfn
from node.joints import flush_tlb_range, note_view_change
from node.vm.huge_rmap import part_position
from node.vm.put_page import put_page
from node.vm.rmap import page_address_in_vma, page_remove_rmap
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
def map_zero_parts(state: "State", pfn: int, vma_index: int) -> None:
    """Let an area map the page of zeroes in place of those of 512 frames, just parted, that hold zeroes.

    The caller holds all the frames.
    """
    mm_index = state.vma[vma_index].mm
    first = page_address_in_vma(state, vma_index, state.page[pfn].index)
    nr_mapped = 0
    for number in range(ENTRIES_PER_TABLE):
        if state.page[pfn + number].content == 0:
            position = part_position(state, vma_index, pfn, number)
            if position != NIL:
                _map_zero_page(state, mm_index, position, first + (number << PAGE_SHIFT))
                nr_mapped += 1
    if nr_mapped:
        flush_tlb_range(state, mm_index, first, first + HUGE_PAGE_SIZE, 0)
