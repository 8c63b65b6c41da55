"""Reading page tables one entry at a time: what the kernels should find there."""

from node.hw.pte import PFN_MASK, Pte
from node.state import State
from shared.constants import NIL, PAGE_SHIFT

TABLE_SHIFT = 9
TOP_SHIFT = 39  # of four levels
NR_LEVELS = 4
INDEX_MASK = (1 << TABLE_SHIFT) - 1


def entries_on_the_way(state: State, root: int, vaddr: int) -> list[tuple[int, int]]:
    """Return (position, entry) from the top level down to the first that is not present or maps a page."""
    table = root
    found = []
    for level in range(NR_LEVELS):
        position = (table << TABLE_SHIFT) + (vaddr >> (TOP_SHIFT - TABLE_SHIFT * level) & INDEX_MASK)
        word = int(state.pt_word[position])
        found.append((position, word))
        if not word & Pte.PRESENT or (word & Pte.HUGE and level < NR_LEVELS - 1):
            break
        table = (word >> PAGE_SHIFT) & PFN_MASK
    return found


def leaf_entry(state: State, root: int, vaddr: int) -> int:
    """Return the last level's entry for ``vaddr``, or 0 if a table is missing."""
    way = entries_on_the_way(state, root, vaddr)
    return way[-1][1] if len(way) == NR_LEVELS else 0


def frame_of(pte: int) -> int:
    """Return the frame of a present entry, or NIL."""
    return (pte >> PAGE_SHIFT) & PFN_MASK if pte & Pte.PRESENT else NIL
