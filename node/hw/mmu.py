"""The MMU: what becomes of an access to memory before a byte is read.

    first-level TLB (data or instructions) --hit, rights suffice----------> frame
       | else                                                                        node/hw/second_level.py
    second-level TLB --hit, rights suffice--> copy to first level --------> frame
       | else
    walk, or a trap to the software that refills ---page, rights suffice--> fill both --> frame
       | else
    fault: vector, CR2 and error code are in the CPU's registers

``access`` is for user programs and has their rights as constants; what it does not find at once as a small private
page is left to the second level. ``access_as`` (node/joints.py) asks the registers what the CPU's level may do.

Source: Intel SDM volume 3, 4.10.2 (TLBs).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, HwEvent
from node.hw.cost import Cost
from node.hw.paging import AccessKind
from node.hw.pte import PFN_MASK
from node.hw.tlb import (
    FRAME_SHIFT,
    KEY_GLOBAL,
    KEY_SIZE_SHIFT,
    KEY_VALID,
    PCID_MASK,
    SIZE_MASK,
    TlbArray,
    TlbRight,
    find_any,
    find_small,
    is_users,
    note_use,
)
from node.joints import access_as, access_beyond_first_level
from shared.constants import NIL
from shared.jit import cold_kernel, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

# What a user program's access needs to go through at once, and which bits that is asked of.
READ_MASK: Final = TlbRight.USER | TlbRight.SPECIAL
READ_WANTED: Final = TlbRight.USER
WRITE_WANTED: Final = TlbRight.USER | TlbRight.WRITE | TlbRight.DIRTY | TlbRight.EPT_WRITE
WRITE_MASK: Final = WRITE_WANTED | TlbRight.SPECIAL
FETCH_WANTED: Final = TlbRight.USER | TlbRight.EXECUTE
FETCH_MASK: Final = FETCH_WANTED | TlbRight.SPECIAL


@kernel
def user_allows(word: int, kind: int) -> int:
    """Return whether a word lets a user program's access through at once."""
    if kind == AccessKind.WRITE:
        return word & WRITE_MASK == WRITE_WANTED
    if kind == AccessKind.EXECUTE:
        return word & FETCH_MASK == FETCH_WANTED
    return word & READ_MASK == READ_WANTED


@hot_kernel
def first_level_of(kind: int) -> int:
    """Return the first role of the first level that an access of this kind looks into."""
    return TlbArray.I1_4K if kind == AccessKind.EXECUTE else TlbArray.D1_4K


@hot_kernel
def count_first_level_hit(state: "State", kind: int) -> None:
    """Count a first-level hit, and charge it."""
    state.hw_event[HwEvent.ITLB_L1_HIT if kind == AccessKind.EXECUTE else HwEvent.TLB_L1_HIT] += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.TLB_L1_HIT]


@hot_kernel
def access(state: "State", vaddr: int, kind: int) -> int:
    """Translate one access of a user program on the current CPU, whose level must be 3; as ``access_as``."""
    index = NIL
    if is_users(vaddr):
        cpu = state.current[Current.CPU]
        index = find_small(state, cpu, first_level_of(kind), vaddr)
        if index != NIL:
            word = state.tlb[index].word
            if user_allows(word, kind):
                count_first_level_hit(state, kind)
                return word >> FRAME_SHIFT & PFN_MASK
    return access_beyond_first_level(state, vaddr, kind, index)


@hot_kernel
def access_again(state: "State", page_index: int) -> None:
    """Access a kernel page of ``state.entry_page`` as ``access_as`` does; at once if its entry is where it was.

    The kernel's tables never take a right away, so what an entry allowed it still allows.
    """
    page = state.entry_page[page_index]
    cpu = state.current[Current.CPU]
    tag = state.cpu[cpu].tlb_tag
    if page.key and state.tlb[page.place].key == page.key | (tag & page.tag_mask):
        note_use(state, cpu, page.array, page.place)
        count_first_level_hit(state, page.kind)
    else:
        _access_and_remember(state, page_index)


@cold_kernel
def _access_and_remember(state: "State", page_index: int) -> None:
    """Access the page, and note where its entry is now."""
    page = state.entry_page[page_index]
    access_as(state, page.vaddr, page.kind)
    level = first_level_of(page.kind)
    place = find_any(state, level, page.vaddr)
    page.key = 0
    if place != NIL:
        key = state.tlb[place].key
        page.place = place
        page.array = level + (key >> KEY_SIZE_SHIFT & SIZE_MASK)
        page.tag_mask = 0 if key & KEY_GLOBAL else KEY_VALID | PCID_MASK
        page.key = key & ~page.tag_mask
