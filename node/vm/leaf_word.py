"""The entry that maps an address, whatever its level: as if each 4 KiB of a huge page had an entry of its own.

Linux: mm/gup.c (follow_page_mask), which looks at a huge entry or at one of the last level likewise.
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.page_table import is_large_leaf, leaf_position
from node.hw.pte import Pte
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def leaf_word(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the entry that maps ``vaddr``, or 0; of a huge page, as an entry of the last level would be."""
    level = state.knob[Knob.NR_LEVELS] - 1
    pgd = state.mm[mm_index].pgd_pfn
    position = leaf_position(state, pgd, vaddr, level)
    if position != NIL:
        return state.pt_word[position]
    position = leaf_position(state, pgd, vaddr, level - 1)
    if position == NIL:
        return 0
    word = state.pt_word[position]
    if not word & Pte.PRESENT or not is_large_leaf(state, level - 1, word):
        return 0
    return (word & ~Pte.HUGE) + ((vaddr >> PAGE_SHIFT & (ENTRIES_PER_TABLE - 1)) << PAGE_SHIFT)
