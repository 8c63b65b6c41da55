"""What must hold of a host and its guests at every border: the host holds what the guests hold.

Written apart from the kernels, with numpy.

    - every frame's content on the host (in a frame, in the swap cache, in a swap slot, or zero if there is
      nothing) is the guest's
    - every frame's view, as the guest has it, grants nothing that the host's page table does not
    - the host knows exactly what it has told each guest
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from node.guest.host_guests import GfnBit
from node.hw.pte import PFN_MASK, SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, Pte
from node.state import State
from node.vm.mappings import mappings_of
from shared.constants import ENTRIES_PER_TABLE, PAGE_SHIFT
from shared.views import View


@dataclass(frozen=True, slots=True)
class HostSide:
    """What a host has for one guest, by gfn."""

    content: npt.NDArray[np.int64]
    view: npt.NDArray[np.int8]  # what its page table grants
    told: npt.NDArray[np.int8]  # what it believes that the guest has
    pfn: npt.NDArray[np.int64]  # the frame that is mapped; -1 for none


def host_side(state: State, guest_index: int) -> HostSide:
    """Read what the host has for a guest from its page tables, frames and swap slots."""
    guest = state.guest[guest_index]
    entries = page_table_entries(state, guest.mm, guest.ram_vaddr, guest.nr_gfns)
    present = (entries & Pte.PRESENT) != 0
    swapped = ~present & (entries != 0)
    pfn = np.where(present, (entries >> PAGE_SHIFT) & PFN_MASK, -1)
    content = np.zeros(len(entries), np.int64)
    content[present] = state.page["content"][pfn[present]]
    slots = ~(entries[swapped] >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK
    cached = state.swap_slot["cached_pfn"][slots]
    content[swapped] = np.where(cached > 0, state.page["content"][cached], state.swap_slot["content"][slots])
    writable = present & ((entries & Pte.WRITE) != 0)
    view = np.zeros(len(entries), np.int8)
    view[swapped] = View.SWAPPED
    view[present] = View.READ_ONLY
    view[writable] = View.WRITABLE
    told = np.asarray(state.view_sent)[guest.view_base : guest.view_base + guest.nr_gfns] & GfnBit.VIEW
    return HostSide(content, view, told, pfn)


def page_table_entries(state: State, mm: int, vaddr: int, nr_pages: int) -> npt.NDArray[np.int64]:
    """Return the leaf entries of ``nr_pages`` pages from ``vaddr`` on; 0 where a table is missing."""
    mappings = mappings_of(state, np.array([mm], np.int64))
    page = mappings.vpn - (vaddr >> PAGE_SHIFT)
    inside = (page >= 0) & (page < nr_pages)
    entries = np.zeros(nr_pages, np.int64)
    entries[page[inside]] = mappings.pte[inside]
    number = np.arange(ENTRIES_PER_TABLE)
    for first, word in zip(mappings.large_vpn - (vaddr >> PAGE_SHIFT), mappings.large_pte, strict=True):
        at = first + number
        fits = (at >= 0) & (at < nr_pages)
        entries[at[fits]] = ((word & ~Pte.HUGE) + (number << PAGE_SHIFT))[fits]
    return entries


def check_guest(state: State, guest_index: int, contents: npt.NDArray[np.int64]) -> None:
    """Check one living guest at a border. Raises ``AssertionError`` that names the first wrong gfn.

    ``contents`` is what the guest says that its frames hold.
    """
    side = host_side(state, guest_index)
    _check(guest_index, "content", side.content, contents)
    _check(guest_index, "view told", side.told, side.view)


def check_view(state: State, guest_index: int, view: npt.NDArray[np.int8]) -> None:
    """Check that a guest, its answer applied, has the views that its host's page table grants."""
    _check(guest_index, "view", np.asarray(view), host_side(state, guest_index).view)


def _check(guest_index: int, what: str, found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    wrong = np.flatnonzero(found != wanted)
    if len(wrong):
        gfn = wrong[0]
        raise AssertionError(
            f"guest {guest_index}, gfn {gfn}: {what} is {found[gfn]}, not {wanted[gfn]} ({len(wrong)} such)"
        )
