"""The pages of one process, each with its page-table entry: what smaps, pagemap and counts of mappings are made from.

    page tables --node/vm/mappings.py--> entries --> one element a page, a larger page's 512 by 512, ascending

There is one walk of page tables for all that reads them from outside: the checks of invariants, and this.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from node.findings import Ints
from node.phys.page import PageFlag
from node.proc.kpageflags import huge_zero
from node.vm.mappings import Mappings, mappings_of
from shared.constants import ENTRIES_PER_TABLE

if TYPE_CHECKING:
    from node.state import State


@dataclass(frozen=True, slots=True)
class ProcessPages:
    """Every page that has an entry, present or swapped out, in ascending order of address."""

    vpn: Ints
    pte: Ints
    pfn: Ints  # of those that are present
    present: Ints  # bool: maps a frame, if for nobody's use (PROT_NONE)
    large: Ints  # bool: by an entry of 2 MiB
    zero: Ints  # bool: maps the page of zeroes, or the huge one
    slot: Ints  # of those that are swapped out


def process_pages(state: "State", mm_index: int) -> ProcessPages:
    """Return the pages of an address space."""
    return pages_of(state, mappings_of(state, np.array([mm_index], np.int64)))


def pages_of(state: "State", mappings: Mappings) -> ProcessPages:
    """Return the pages among one address space's mappings."""
    parts = np.arange(ENTRIES_PER_TABLE, dtype=np.int64)
    nr_small, nr_large = len(mappings.vpn), len(mappings.large_vpn) * ENTRIES_PER_TABLE
    vpn = np.concatenate([mappings.vpn, (mappings.large_vpn[:, None] + parts).ravel()])
    pte = np.concatenate([mappings.pte, np.repeat(mappings.large_pte, ENTRIES_PER_TABLE)])
    present = np.concatenate([mappings.present, np.ones(nr_large, bool)])
    pfn = np.concatenate([mappings.pfn, (mappings.huge_heads[:, None] + parts).ravel()])
    slot = np.concatenate([mappings.slot, np.zeros(nr_large, np.int64)])
    large = np.repeat([False, True], [nr_small, nr_large])
    if nr_large:
        order = np.argsort(vpn, kind="stable")
        vpn, pte, present, pfn, slot, large = (each[order] for each in (vpn, pte, present, pfn, slot, large))
    pfn = np.where(present, pfn, 0)
    flags = np.asarray(state.page)["page_flags"][pfn]
    zero = present & (((flags & PageFlag.ZERO_PAGE) != 0) | huge_zero(state, pfn))
    return ProcessPages(vpn, pte, pfn, present, large, zero, np.where(present, 0, slot))
