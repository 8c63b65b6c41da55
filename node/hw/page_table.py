"""Page tables: four levels of 512 entries, each table in a frame of the machine's own memory.

    vaddr   47..39  38..30  29..21  20..12  11..0
            PGD     PUD     PMD     PTE     offset      (Intel: PML4, PDPT, PD, PT)

The entries of a table in frame ``pfn`` are ``state.pt_word[pfn * 512 ...]``, so a physical address divided by
eight is the index of its word, and a walk is what the processor does: four loads.

Source: Intel SDM volume 3, 4.5; Linux arch/x86/include/asm/pgtable_64_types.h.
"""

from typing import TYPE_CHECKING, Final

from node.hw.pte import Pte, pte_pfn
from shared.constants import NIL, PAGE_SHIFT, TABLE_INDEX_MASK, TABLE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

NR_LEVELS: Final = 4
TOP_SHIFT: Final = PAGE_SHIFT + TABLE_SHIFT * (NR_LEVELS - 1)


@kernel
def entry_position(table_pfn: int, vaddr: int, shift: int) -> int:
    """Return where in ``pt_word`` the entry for ``vaddr`` stands in a table of the level with ``shift``."""
    return (table_pfn << TABLE_SHIFT) + ((vaddr >> shift) & TABLE_INDEX_MASK)


@kernel
def pte_position(state: "State", pgd_pfn: int, vaddr: int) -> int:
    """Return where in ``pt_word`` the leaf entry for ``vaddr`` stands, or NIL if a table is missing."""
    table = pgd_pfn
    for level in range(NR_LEVELS - 1):
        word = state.pt_word[entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level)]
        if not word & Pte.PRESENT:
            return NIL
        table = pte_pfn(word)
    return entry_position(table, vaddr, PAGE_SHIFT)
