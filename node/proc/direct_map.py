"""How the direct map is made of pages of each size: what /proc/meminfo calls DirectMap4k, 2M and 1G.

    PAGE_OFFSET                                                        end of the memory
    | 4K 4K 4K ... |  2M  |  2M  |  2M  | ... |        1G        | ... |

The first block is of small pages, since memory types change within it; the rest is as large as it fits. Linux
keeps count as it splits and makes entries; here the master table itself is read, a table at a time.

Linux: arch/x86/mm/pat/set_memory.c (direct_pages_count, arch_report_meminfo).
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.hw.pte import PFN_MASK, Pte
from shared.constants import PAGE_KIB, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

SIZE_NAMES: Final = {12: "4k", 21: "2M", 22: "4M", 30: "1G"}  # by the shift of a level's entries


def direct_map_kib(state: "State") -> dict[str, int]:
    """Return how much is mapped by pages of each size, in KiB, smallest first; {} on a machine without paging.

    Sizes above the second are there only if the processor maps pages of them.
    """
    levels = [state.paging_level[index] for index in range(int(state.knob[Knob.NR_LEVELS]))]
    if not levels:
        return {}
    mapped = _mapped_pages(state, [int(level.shift) for level in levels])
    sizes = {}
    for position, level in enumerate(reversed(levels)):
        if int(level.shift) in SIZE_NAMES and (position <= 1 or level.leaf):
            sizes[SIZE_NAMES[int(level.shift)]] = mapped.get(int(level.shift), 0) * PAGE_KIB
    return sizes


def _mapped_pages(state: "State", shifts: list[int]) -> dict[int, int]:
    """Return how many 4 KiB pages of the direct map are mapped by entries of each shift."""
    start = int(state.knob[Knob.PAGE_OFFSET])
    end = start + (int(state.knob[Knob.NR_FRAMES]) << PAGE_SHIFT)
    nr_entries = 1 << int(state.knob[Knob.TABLE_SHIFT])
    words = np.asarray(state.pt_word)
    span = nr_entries << shifts[0]
    tables = [(int(state.knob[Knob.SWAPPER_PGD]), start - start % span)]  # frame, address of its first entry
    mapped: dict[int, int] = {}
    for shift in shifts:
        below = []
        for pfn, base in tables:
            entries = words[pfn * nr_entries : (pfn + 1) * nr_entries]
            addresses = base + (np.arange(nr_entries, dtype=np.int64) << shift)
            inside = (addresses + (1 << shift) > start) & (addresses < end)
            present = inside & ((entries & Pte.PRESENT) != 0)
            is_page = present if shift == PAGE_SHIFT else present & ((entries & Pte.HUGE) != 0)
            mapped[shift] = mapped.get(shift, 0) + (int(np.count_nonzero(is_page)) << (shift - PAGE_SHIFT))
            leading = np.flatnonzero(present & ~is_page)
            frames = (entries[leading] >> PAGE_SHIFT) & PFN_MASK
            below += list(zip(frames.tolist(), addresses[leading].tolist(), strict=True))
        tables = below
    return mapped
