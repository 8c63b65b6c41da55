"""Page tables under construction: plain Python and numpy, for what is mapped once, when the machine is built.

Tables are arrays of words by frame number, and frames are taken from a reserved range one after the other (the
kernel's own early allocator, alloc_low_pages, does the same). Nothing is written to a machine before all is
mapped.

Linux: arch/x86/mm/init.c (alloc_low_pages), arch/x86/include/asm/pgtable_types.h (_PAGE_TABLE).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from node.hw.paging import PAGING_MODES, PageSize, PagingMode
from node.hw.pte import PFN_MASK, Pte
from shared.constants import PAGE_SHIFT, PAGE_SIZE

Words = npt.NDArray[np.int64]

KERNEL_TABLE: Final = Pte.PRESENT | Pte.WRITE | Pte.ACCESSED | Pte.DIRTY  # _KERNPG_TABLE
TABLE: Final = KERNEL_TABLE | Pte.USER  # _PAGE_TABLE


class TableBuilder:
    """Page tables of a mode under construction, in the frames of ``frames`` (first, behind).

    ``gigantic``: the processor has 1 GiB pages. Levels are counted from the top down, addresses are unsigned.
    """

    def __init__(self, mode: PagingMode, frames: tuple[int, int], *, gigantic: bool) -> None:
        self.next_pfn, self.behind = frames
        self.nr_frames = self.behind - self.next_pfn
        self.mode = PAGING_MODES[mode]
        self.levels = self.mode.levels
        self.tables: dict[int, Words] = {}
        self.leaf_levels = [
            number
            for number, level in enumerate(self.levels)
            if level.page_name is not None and (gigantic or level.page_size != PageSize.GIGANTIC)
        ]

    def take(self, nr_frames: int, align: int = 1) -> int:
        """Return the first of ``nr_frames`` frames, which nobody else gets. Raises ValueError if none are left."""
        first = -(-self.next_pfn // align) * align
        if first + nr_frames > self.behind:
            raise ValueError(
                f"memory: the kernel's page tables need more frames than the {self.nr_frames} reserved for them"
            )
        self.next_pfn = first + nr_frames
        return first

    def new_table(self, nr_tables: int = 1, align: int = 1) -> int:
        """Return the frame of an empty table, the first of ``nr_tables``."""
        first = self.take(nr_tables, align)
        for pfn in range(first, first + nr_tables):
            self.tables[pfn] = np.zeros(1 << self.mode.table_shift, np.int64)
        return first

    def index(self, level: int, vaddr: int) -> int:
        """Return which entry of a table of ``level`` is for an unsigned address."""
        return (vaddr >> self.levels[level].shift) & ((1 << self.mode.table_shift) - 1)

    def level_with(self, shift: int) -> int:
        """Return the number of the level whose entries span ``1 << shift`` bytes."""
        return [level.shift for level in self.levels].index(shift)

    def table_for(self, root: int, vaddr: int, level: int, bits: int = TABLE) -> int:
        """Return the table of ``level`` for an address, making what is missing with entries of ``bits``."""
        pfn = root
        for above in range(level):
            words = self.tables[pfn]
            index = self.index(above, vaddr)
            if not words[index] & Pte.PRESENT:
                words[index] = (self.new_table() << PAGE_SHIFT) | bits
            assert not words[index] & Pte.HUGE, f"{vaddr:#x} is mapped by a large page"
            pfn = int(words[index]) >> PAGE_SHIFT & PFN_MASK
        return pfn

    def level_for(self, vaddr: int, pfn: int, nr_pages: int, largest: int) -> int:
        """Return the level of the largest page that may map ``pfn`` at ``vaddr`` without going too far."""
        for level in self.leaf_levels[:-1]:
            pages = 1 << (self.levels[level].shift - PAGE_SHIFT)
            aligned = not (vaddr >> PAGE_SHIFT | pfn) & (pages - 1)
            if aligned and pages <= min(nr_pages, largest):
                return level
        return self.leaf_levels[-1]

    def map_pages(
        self, root: int, vaddr: int, frames: tuple[int, int], bits: int, largest: int | None = None
    ) -> None:
        """Map frames (first, behind) from an address on, with the largest pages that are aligned and fit.

        ``largest`` limits them, in 4 KiB pages. Runs of entries of one table are written at once.
        """
        pfn, left = frames[0], frames[1] - frames[0]
        while left:
            level = self.level_for(vaddr, pfn, left, largest or left)
            words = self.tables[self.table_for(root, vaddr, level)]
            pages = 1 << (self.levels[level].shift - PAGE_SHIFT)
            index = self.index(level, vaddr)
            # Up to the next border at which a larger page may begin, which is the end of the table.
            count = min(left // pages, len(words) - index)
            huge = Pte.HUGE if level < len(self.levels) - 1 else 0
            run = np.arange(pfn, pfn + count * pages, pages, dtype=np.int64) << PAGE_SHIFT
            words[index : index + count] = run | (bits | huge)
            pfn += count * pages
            left -= count * pages
            vaddr += count * pages * PAGE_SIZE
