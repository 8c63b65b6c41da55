"""What must hold of transparent huge pages at any time when no kernel runs.

    - with each PMD table are deposited as many page tables as it has entries that map such pages
    - huge_mapcount is the entries that map a page whole; DOUBLE_MAP is set where both kinds of entries do
    - an entry that may be written maps a page that nobody else maps
    - the 512 frames know their head, and lie in one aligned block
    - the deferred queue holds huge pages, each once

Written apart from the kernels, with numpy over whole tables. What frames and address spaces count of huge pages is
checked with the rest, in vm_check.py.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Current, Knob, VmStat
from node.findings import Ints, differ, each
from node.hw.pte import PFN_MASK, Pte
from node.phys.page import PageFlag
from node.vm.mappings import Mappings
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State


@dataclass(frozen=True, slots=True)
class HugeEntries:
    """Entries that map transparent huge pages, and the tables deposited for them; one element each."""

    mm: Ints
    head: Ints
    pte: Ints
    vpn: Ints
    is_zero: Ints  # 1: the huge page of zeroes
    table_mm: Ints
    table_pfn: Ints
    wrong: list[str]


def huge_entries(state: "State", mappings: Mappings) -> HugeEntries:
    """Find all entries that map transparent huge pages, and all deposited tables."""
    heads = mappings.huge_heads
    page_flags = state.page["page_flags"]
    mine = np.flatnonzero(page_flags[heads] & (PageFlag.HUGE | PageFlag.ZERO_PAGE))
    table_mm: list[int] = []
    table_pfn: list[int] = []
    wrong: list[str] = []
    shift = int(state.knob[Knob.TABLE_SHIFT])
    words = np.asarray(state.pt_word).reshape(-1, 1 << shift)
    at_pmd = np.flatnonzero(mappings.table_level == int(state.knob[Knob.NR_LEVELS]) - 2)
    for at in at_pmd.tolist() if 1 << shift == ENTRIES_PER_TABLE else []:
        keeper = int(mappings.table_pfn[at])
        ring = _ring(state, int(state.page[keeper].private))
        row = words[keeper]
        large = row[row & (Pte.PRESENT | Pte.HUGE) == Pte.PRESENT | Pte.HUGE]
        mapped = page_flags[(large >> PAGE_SHIFT) & PFN_MASK] & (PageFlag.HUGE | PageFlag.ZERO_PAGE) != 0
        wrong += differ(
            f"PMD table {keeper}, tables deposited",
            len(ring),
            int(mapped.sum()),
            "entries that map huge pages",
        )
        table_pfn += ring
        table_mm += [int(mappings.table_mm[at])] * len(ring)
    return HugeEntries(
        mm=mappings.large_mm[mine],
        head=heads[mine],
        pte=mappings.large_pte[mine],
        vpn=mappings.large_vpn[mine],
        is_zero=(page_flags[heads[mine]] & PageFlag.ZERO_PAGE != 0).astype(np.int64),
        table_mm=np.array(table_mm, np.int64),
        table_pfn=np.array(table_pfn, np.int64),
        wrong=wrong,
    )


def _ring(state: "State", first: int) -> list[int]:
    """Return the members of a ring of deposited tables, as far as it is one."""
    ring: list[int] = []
    table = first
    while first and 0 < table < len(state.page) and len(ring) <= ENTRIES_PER_TABLE:
        ring.append(table)
        table = int(state.page[table].next)
        if table == first:
            break
    return ring


def check_huge(state: "State", mappings: Mappings, huge: HugeEntries) -> list[str]:
    """Return one line for each thing that is wrong with transparent huge pages."""
    pages = state.page
    page_flags = pages["page_flags"]
    flagged = page_flags & PageFlag.HUGE != 0
    pfns = np.flatnonzero(flagged)
    heads = pages["head"][pfns].astype(np.int64)
    misplaced = (heads != pfns & ~(ENTRIES_PER_TABLE - 1)) | ~flagged[np.where(heads >= 0, heads, 0)]
    wrong = huge.wrong + each(
        pfns[misplaced], "frame {}: is part of a huge page, but not at its place".format
    )
    if wrong:
        return wrong
    first = np.unique(heads)
    whole = np.bincount(huge.head[huge.is_zero == 0], minlength=len(pages))
    wrong += each(
        np.flatnonzero(pages["huge_mapcount"] != whole),
        lambda pfn: (
            f"frame {pfn}.huge_mapcount: is {pages[pfn].huge_mapcount}, but PMD entries: {whole[pfn]}"
        ),
    )
    small = np.bincount(mappings.pfn[mappings.present], minlength=len(pages))
    parts = np.array([small[pfn : pfn + ENTRIES_PER_TABLE].sum() for pfn in first.tolist()], np.int64)
    both = page_flags[first] & PageFlag.DOUBLE_MAP != 0
    wrong += each(
        first[(parts > 0) & (whole[first] > 0) & ~both | both & (whole[first] == 0)],
        "huge page {}: DOUBLE_MAP does not say which entries map it".format,
    )
    alone = page_flags[huge.head] & PageFlag.ANON_EXCLUSIVE != 0
    refs = pages["refcount"][huge.head]
    wrong += each(
        huge.head[
            (huge.pte & Pte.WRITE != 0) & ~alone
            | alone & (huge.is_zero == 0) & (refs > 1) & (whole[huge.head] > 1)
        ],
        "huge page {}: may be written, or is exclusive, and is not one entry's alone".format,
    )
    wrong += differ(
        "NR_ANON_TRANSPARENT_HUGEPAGES",
        state.vm_stat[VmStat.NR_ANON_TRANSPARENT_HUGEPAGES],
        int((whole > 0).sum()),
        "huge pages mapped whole",
    )
    wrong += differ(
        "HUGE_ZERO_USERS",
        state.current[Current.HUGE_ZERO_USERS],
        int(huge.is_zero.sum()),
        "entries that map it",
    )
    return wrong + _check_deferred(state, set(first.tolist()))


def _check_deferred(state: "State", heads: set[int]) -> list[str]:
    nr_deferred = int(state.current[Current.NR_DEFERRED])
    queue: list[int] = []
    pfn = int(state.current[Current.DEFERRED_FIRST]) if nr_deferred else NIL
    while pfn != NIL and pfn in heads and len(queue) <= nr_deferred:
        queue.append(pfn)
        pfn = int(state.page[pfn + 1].next)
    wrong = differ("deferred queue", nr_deferred, len(queue), "huge pages in it")
    said = {pfn for pfn in heads if state.page[pfn + 1].private}
    return wrong + (
        [] if said == set(queue) else [f"deferred queue: holds {queue}, but says so: {sorted(said)}"]
    )
