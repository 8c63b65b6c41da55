"""Page tables: levels of tables, each table in a frame of the machine's own memory.

    vaddr   47..39  38..30  29..21  20..12  11..0
            PGD     PUD     PMD     PTE     offset      (Intel: PML4, PDPT, PD, PT)

Here of 4-level paging; ``state.paging_level`` says how many levels the machine's mode has and which bits index
each (node/hw/paging.py). The entries of a table in frame ``pfn`` are ``state.pt_word[pfn * 512 ...]``, so a
physical address divided by eight is the index of its word, and a walk is what the processor does: one load a
level. In 32-bit mode each of the 1024 four-byte entries of a table has a word to itself.

Source: Intel SDM volume 3, 4.3 and 4.5; Linux arch/x86/include/asm/pgtable_64_types.h.
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.pte import Pte, pte_pfn
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def entry_position(state: "State", table_pfn: int, vaddr: int, level: int) -> int:
    """Return where in ``pt_word`` the entry for ``vaddr`` stands in a table of ``level``, counted from the top."""
    here = state.paging_level[level]
    return (table_pfn << state.knob[Knob.TABLE_SHIFT]) + (vaddr >> here.shift & here.index_mask)


@kernel
def is_large_leaf(state: "State", level: int, word: int) -> int:
    """Return whether a present entry above the last level maps a page itself."""
    return 1 if word & Pte.HUGE and state.paging_level[level].leaf else 0


@kernel
def leaf_position(state: "State", pgd_pfn: int, vaddr: int, levels: int) -> int:
    """Return where the entry for ``vaddr`` of the table ``levels`` below the top stands, or NIL if none leads there."""
    table = pgd_pfn
    for level in range(levels):
        word = state.pt_word[entry_position(state, table, vaddr, level)]
        if not word & Pte.PRESENT or is_large_leaf(state, level, word):
            return NIL
        table = pte_pfn(word)
    return entry_position(state, table, vaddr, levels)


@kernel
def pte_position(state: "State", pgd_pfn: int, vaddr: int) -> int:
    """Return where in ``pt_word`` the last level's entry for ``vaddr`` stands.

    NIL if a table is missing, or a larger page is mapped there.
    """
    return leaf_position(state, pgd_pfn, vaddr, state.knob[Knob.NR_LEVELS] - 1)
