"""What must hold of the TLBs at any time: no entry allows what page tables or a guest's EPT view forbid.

This is the invariant that real kernels break when they forget a flush. An entry may allow less than the
tables do: the processor walks again before it faults.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob
from node.hw.page_table import NR_LEVELS, TOP_SHIFT
from node.hw.pte import PFN_MASK, Pte
from node.hw.tlb import PCID_MASK, TlbRight
from node.pool import Pool
from shared.constants import PAGE_SHIFT, TABLE_INDEX_MASK, TABLE_SHIFT
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


def forbidden_entries(state: "State") -> list[str]:
    """Return one line for each TLB entry that allows what tables or view forbid; none if all is well."""
    mark = int(state.pool[Pool.MM].mark)
    alive = np.flatnonzero(np.asarray(state.mm)[:mark]["alive"])
    mm_of_pcid = {int(state.mm[index].pcid): int(index) for index in alive}
    wrong = []
    for index in np.flatnonzero(np.asarray(state.tlb)["stamp"]):
        entry = state.tlb[int(index)]
        mm_index = mm_of_pcid.get(entry.key & PCID_MASK)
        allowed = 0 if mm_index is None else _allowed(state, mm_index, entry.key & ~PCID_MASK, entry.pfn)
        if not allowed & TlbRight.USER or entry.rights & ~allowed:
            wrong.append(
                f"tlb[{index}]: page {entry.key:#x} of mm {mm_index} to frame {entry.pfn}"
                f" with rights {entry.rights:#x}, but tables and view allow {allowed:#x}"
            )
    return wrong


def _allowed(state: "State", mm_index: int, vaddr: int, pfn: int) -> int:
    """Return the TlbRight bits that an entry for ``vaddr`` may have; none if it may not map ``pfn``."""
    table = state.mm[mm_index].pgd_pfn
    common = Pte.WRITE | Pte.USER
    word = 0
    for level in range(NR_LEVELS):
        shift = TOP_SHIFT - TABLE_SHIFT * level
        word = int(state.pt_word[(table << TABLE_SHIFT) + ((vaddr >> shift) & TABLE_INDEX_MASK)])
        if not word & Pte.PRESENT:
            return 0
        common &= word
        table = (word >> PAGE_SHIFT) & PFN_MASK
    view = int(state.ept_view[pfn]) if state.knob[Knob.IS_GUEST] else View.WRITABLE
    if table != pfn or view < View.READ_ONLY or not common & Pte.USER:
        return 0
    rights: int = TlbRight.USER
    rights |= TlbRight.WRITE if common & Pte.WRITE else 0
    rights |= TlbRight.DIRTY if word & Pte.DIRTY else 0
    rights |= TlbRight.EPT_WRITE if view == View.WRITABLE else 0
    return rights
