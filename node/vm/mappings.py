"""All page tables at once, as arrays: what the checks of invariants and the files of /proc count mappings from.

Written apart from the kernels' walks: one gather a level, over the tables of many address spaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob
from node.findings import Ints, each, used_records
from node.hw.paging import MIN_LEVELS_64
from node.hw.pte import PFN_MASK, PROT_NONE, SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, Pte
from node.phys.page import PageFlag
from node.pool import Pool
from shared.constants import PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State


@dataclass(frozen=True, slots=True)
class Mappings:
    """Every entry of the last level that is not empty, every larger page, and every table; one element each."""

    mm: Ints
    vpn: Ints
    pte: Ints
    large_mm: Ints  # of entries above the last level that map a page
    large_vpn: Ints
    large_pte: Ints
    table_mm: Ints  # the top table first, and the second of its pair
    table_level: Ints  # 0: the top
    table_pfn: Ints
    wrong: list[str]  # entries of upper levels that lead nowhere
    table_slot: Ints  # of each swapped-out table; what it holds is among the entries

    @property
    def present(self) -> Ints:
        """Which leaf entries map a frame, for use or, PROT_NONE, for nobody's."""
        present: Ints = np.not_equal(self.pte & (Pte.PRESENT | PROT_NONE), 0)
        return present

    @property
    def pfn(self) -> Ints:
        """Frame of each leaf entry that is present; meaningless for the others."""
        return (self.pte >> PAGE_SHIFT) & PFN_MASK

    @property
    def huge_heads(self) -> Ints:
        """First frame of each larger page."""
        return (self.large_pte >> PAGE_SHIFT) & PFN_MASK

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
    return mappings_of(state, living_mms(state))


def mappings_of(state: "State", mm: Ints, *, tables_only: bool = False) -> Mappings:
    """Walk the user half of the page tables of these address spaces.

    ``tables_only`` leaves the last level's tables unread, which costs a 512th: there are then no leaf entries.
    """
    shift = int(state.knob[Knob.TABLE_SHIFT])
    words = np.asarray(state.pt_word).reshape(-1, 1 << shift)
    nr_levels = int(state.knob[Knob.NR_LEVELS])
    pfn = state.mm["pgd_pfn"][mm].astype(np.int64)
    vpn = np.zeros(len(mm), np.int64)
    tables = [(mm, 0 * mm, pfn + 1)] if has_pairs(state) else []
    large: list[tuple[Ints, Ints, Ints]] = []
    wrong: list[str] = []
    entries = vpn
    swapped = _Swapped(vpn[:0], vpn[:0], vpn[:0], vpn[:0])
    if nr_levels == 0:  # without paging nothing is mapped
        mm, vpn, entries = mm[:0], vpn[:0], entries[:0]
    for level in range(nr_levels):
        fits = (pfn >= 0) & (pfn < len(words))
        fits[fits] &= state.page["page_flags"][pfn[fits]] & PageFlag.PAGE_TABLE != 0
        wrong += each(pfn[~fits], f"page tables of level {nr_levels - level}: frame {{}} is none".format)
        mm, pfn, vpn = mm[fits], pfn[fits], vpn[fits]
        tables.append((mm, np.full(len(mm), level), pfn))
        if tables_only and level == nr_levels - 1:
            mm, vpn, entries = mm[:0], vpn[:0], vpn[:0]
            break
        rows = words[pfn]
        if level == 0:
            rows = rows[:, : _nr_user_entries(state)]
        which, index = np.nonzero(rows)
        entries = rows[which, index]
        mm, vpn = mm[which], (vpn[which] << shift) | index
        if level < nr_levels - 1:
            is_large = entries & (Pte.HUGE | Pte.PRESENT) == Pte.HUGE | Pte.PRESENT
            below = shift * (nr_levels - 1 - level)
            large.append((mm[is_large], vpn[is_large] << below, entries[is_large]))
            mm, vpn, entries = mm[~is_large], vpn[~is_large], entries[~is_large]
        if state.knob[Knob.PAGEABLE_TABLES] and level == nr_levels - 2:
            is_out = entries & Pte.PRESENT == 0
            swapped = _swapped_tables(state, mm[is_out], vpn[is_out], entries[is_out])
            mm, vpn, entries = mm[~is_out], vpn[~is_out], entries[~is_out]
        pfn = (entries >> PAGE_SHIFT) & PFN_MASK
    if len(swapped.slot):
        mm, vpn, entries = _merged((mm, vpn, entries), (swapped.mm, swapped.vpn, swapped.pte))
    return Mappings(
        mm=mm,
        vpn=vpn,
        pte=entries,
        large_mm=_joined(large, 0),
        large_vpn=_joined(large, 1),
        large_pte=_joined(large, 2),
        table_mm=_joined(tables, 0),
        table_level=_joined(tables, 1),
        table_pfn=_joined(tables, 2),
        wrong=wrong,
        table_slot=swapped.slot,
    )


@dataclass(frozen=True, slots=True)
class _Swapped:
    """The slots of swapped-out tables, and the entries in them that are not empty."""

    slot: Ints
    mm: Ints
    vpn: Ints
    pte: Ints


def _swapped_tables(state: "State", mm: Ints, vpn: Ints, entries: Ints) -> _Swapped:
    """Read the swapped-out tables that these entries of the level above name."""
    shift = int(state.knob[Knob.TABLE_SHIFT])
    words = np.asarray(state.slot_word).reshape(-1, 1 << shift)
    slot = ~(entries >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK
    rows = words[np.where(slot < len(words), slot, 0)]  # one that is none is the swap area's check to find
    which, index = np.nonzero(rows)
    return _Swapped(slot, mm[which], (vpn[which] << shift) | index, rows[which, index])


def _merged(here: tuple[Ints, Ints, Ints], swapped: tuple[Ints, Ints, Ints]) -> tuple[Ints, Ints, Ints]:
    """Return (mm, vpn, pte) of both, by address space and ascending address."""
    mm, vpn, pte = (np.concatenate(pair) for pair in zip(here, swapped, strict=True))
    order = np.lexsort((vpn, mm))
    return mm[order], vpn[order], pte[order]


def _joined(parts: Sequence[tuple[Ints, ...]], column: int) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *(part[column] for part in parts)])


def _nr_user_entries(state: "State") -> int:
    """Return how many entries of a top table map user space."""
    return int(state.knob[Knob.KERNEL_PGD_INDEX]) or 1 << int(state.knob[Knob.TABLE_SHIFT])


def has_pairs(state: "State") -> bool:
    """Return whether top tables come in pairs, the second of them for user mode."""
    return bool(state.knob[Knob.NR_LEVELS] >= MIN_LEVELS_64)


def second_of_pairs(state: "State") -> Ints:
    """Return the second frame of the top tables of all living address spaces."""
    second: Ints = state.mm["pgd_pfn"][living_mms(state)].astype(np.int64) + 1
    return second if has_pairs(state) else second[:0]
