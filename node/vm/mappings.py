"""All page tables at once, as arrays: what the checks of invariants count mappings from.

Written apart from the kernels' walks: one gather a level, over the tables of every living address space.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from node.findings import Ints, each, used_records
from node.hw.page_table import NR_LEVELS
from node.hw.pte import PFN_MASK, SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, Pte
from node.phys.page import PageFlag
from node.pool import Pool
from shared.constants import ENTRIES_PER_TABLE, PAGE_SHIFT, TABLE_SHIFT

if TYPE_CHECKING:
    from node.state import State


@dataclass(frozen=True, slots=True)
class Mappings:
    """Every leaf entry that is not empty, and every table; one element each."""

    mm: Ints
    vpn: Ints
    pte: Ints
    table_mm: Ints
    table_pfn: Ints
    wrong: list[str]  # entries of upper levels that lead nowhere

    @property
    def present(self) -> Ints:
        """Which leaf entries map a frame."""
        present: Ints = np.not_equal(self.pte & Pte.PRESENT, 0)
        return present

    @property
    def pfn(self) -> Ints:
        """Frame of each leaf entry that is present; meaningless for the others."""
        return (self.pte >> PAGE_SHIFT) & PFN_MASK

    @property
    def slot(self) -> Ints:
        """Swap slot of each leaf entry that is not present; meaningless for the others."""
        return ~(self.pte >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK

    def name(self, index: int) -> str:
        """Return how a finding calls an entry."""
        return f"mm {self.mm[index]}, page {int(self.vpn[index]) << PAGE_SHIFT:#x}"


def living_mms(state: "State") -> Ints:
    """Return the address spaces that have page tables."""
    mark = state.pool[Pool.MM].mark
    return np.flatnonzero(used_records(state, Pool.MM) & (state.mm["alive"][:mark] != 0))


def all_mappings(state: "State") -> Mappings:
    """Walk the page tables of all living address spaces."""
    words = np.asarray(state.pt_word).reshape(-1, ENTRIES_PER_TABLE)
    mm = living_mms(state)
    pfn = state.mm["pgd_pfn"][mm].astype(np.int64)
    vpn = np.zeros(len(mm), np.int64)
    tables = []
    wrong: list[str] = []
    for level in range(NR_LEVELS):
        fits = (pfn >= 0) & (pfn < len(words))
        fits[fits] &= state.page["page_flags"][pfn[fits]] & PageFlag.PAGE_TABLE != 0
        wrong += each(pfn[~fits], f"page tables of level {NR_LEVELS - level}: frame {{}} is none".format)
        mm, pfn, vpn = mm[fits], pfn[fits], vpn[fits]
        tables.append((mm, pfn))
        rows = words[pfn]
        which, index = np.nonzero(rows)
        entries = rows[which, index]
        mm, vpn = mm[which], (vpn[which] << TABLE_SHIFT) | index
        pfn = (entries >> PAGE_SHIFT) & PFN_MASK
    return Mappings(
        mm,
        vpn,
        entries,
        np.concatenate([t[0] for t in tables]),
        np.concatenate([t[1] for t in tables]),
        wrong,
    )
