"""Beyond the first-level TLB: the second level, the walk or the software that refills, and the fault.

A TLB entry remembers D, so the first write after reads walks once more to set it; likewise an access that the
entry forbids walks before it faults, because the tables may have been changed in its favour without a flush.

An entry with a protection key or a memory type other than write-back is looked at with the registers that say
what it means, in either level. With paging off (CR0.PG clear), an address is physical.

Where software refills the TLB (MIPS), a miss traps to a handler that walks and writes the entry; hardware
sets no A or D there: the handler does, and a first write traps once more (TLB Modified).

Sources: Intel SDM volume 3, 4.10.2, 4.10.4.1; MIPS R3000: Kane, MIPS RISC Architecture, chapter 4.
"""

from typing import TYPE_CHECKING

from node.counters import Current, HwEvent, Knob
from node.hw.cost import Cost
from node.hw.memory_type import type_extra_ps
from node.hw.mmu import count_first_level_hit, first_level_of, user_allows
from node.hw.paging import AccessKind
from node.hw.pte import PFN_MASK
from node.hw.registers import Cr0, FaultVector
from node.hw.tlb import (
    FRAME_SHIFT,
    NO_TAG,
    PAT_INDEX_MASK,
    PAT_INDEX_SHIFT,
    UNUSUAL_OF_USERS,
    Refill,
    TlbArray,
    TlbRight,
    beyond_keys,
    fill,
    fill_both_new,
    find_any,
    find_small,
    frame_of,
    is_small_private,
    is_users,
    put,
)
from node.hw.walk import Cached, key_forbids, path_forbids, walk
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import cold_kernel, entry, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _allows(state: "State", word: int, kind: int) -> int:
    """Return whether a TLB entry's word lets the current CPU do the access without a walk."""
    if kind == AccessKind.WRITE:
        needed = TlbRight.DIRTY | TlbRight.EPT_WRITE
        if word & needed != needed:
            return 0
    return 0 if path_forbids(state, word, kind) or key_forbids(state, word, kind) else 1


@kernel
def _charge_type(state: "State", word: int, kind: int) -> None:
    """Charge what the page's memory type adds to an access, and say that the data cache must not see it."""
    if word & TlbRight.SPECIAL:
        # Whoever makes the access charges a cached one.
        extra_ps = type_extra_ps(state, word >> PAT_INDEX_SHIFT & PAT_INDEX_MASK, kind)
        state.current[Current.CLOCK_PS] += extra_ps
        state.current[Current.PAGE_IS_SPECIAL] = 1


@hot_kernel
def _count_second_level_hit(state: "State", kind: int) -> None:
    """Count a second-level hit, and charge it."""
    state.hw_event[HwEvent.ITLB_L2_HIT if kind == AccessKind.EXECUTE else HwEvent.TLB_L2_HIT] += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.TLB_L2_HIT]


@cold_kernel
def _fill_both(state: "State", first_level: int, vaddr: int, word: int) -> None:
    """Put the translation of ``vaddr`` into both levels."""
    fill(state, first_level, vaddr, word)
    fill(state, TlbArray.L2_4K, vaddr, word)


@kernel
def _refill(state: "State", vaddr: int, kind: int, cached: int) -> int:
    """Serve a miss of all levels: return the page's word, now in the TLBs, or NIL for a fault; as ``walk``."""
    state.hw_event[HwEvent.ITLB_WALK if kind == AccessKind.EXECUTE else HwEvent.TLB_WALK] += 1
    if state.knob[Knob.TLB_REFILL] == Refill.SOFTWARE:
        state.hw_event[HwEvent.REFILL_TRAP] += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.REFILL_TRAP]
    word = walk(state, vaddr, kind, cached)
    if word == NIL:
        return NIL
    if cached != Cached.ANYTHING and is_small_private(word):
        fill_both_new(state, first_level_of(kind), vaddr, word)
    else:
        _fill_both(state, first_level_of(kind), vaddr, word)
    return word


@kernel
def _translate_slowly(state: "State", vaddr: int, kind: int) -> int:
    """Return the word for an access that the first look did not let through, or NIL for a fault."""
    if beyond_keys(vaddr):
        return _refill(state, vaddr, kind, Cached.ANYTHING)
    first_level = first_level_of(kind)
    index = find_any(state, first_level, vaddr)
    if index != NIL and _allows(state, state.tlb[index].word, kind):
        count_first_level_hit(state, kind)
        return state.tlb[index].word
    index = find_any(state, TlbArray.L2_4K, vaddr)
    if index != NIL and _allows(state, state.tlb[index].word, kind):
        _count_second_level_hit(state, kind)
        word = state.tlb[index].word
        fill(state, first_level, vaddr, word)
        return word
    return _refill(state, vaddr, kind, Cached.ANYTHING)


@kernel
def _access_as(state: "State", vaddr: int, kind: int) -> int:
    """Translate one access of the current CPU at its privilege level; return the 4 KiB frame, or NIL for a fault.

    ``kind`` is an AccessKind. Charges the clock with the translation, and with what the memory type adds.
    Each access is one first-level hit, second-level hit or walk.
    """
    cpu = state.cpu[state.current[Current.CPU]]
    if not cpu.cr0 & Cr0.PG:
        pfn = vaddr >> PAGE_SHIFT
        if 0 <= pfn < state.knob[Knob.NR_FRAMES]:
            return pfn
        cpu.fault_vector = FaultVector.GENERAL_PROTECTION
        cpu.error_code = 0
        return NIL
    word = _translate_slowly(state, vaddr, kind)
    if word == NIL:
        return NIL
    _charge_type(state, word, kind)
    return frame_of(state, word, vaddr)


@entry
def access_as(state: "State", vaddr: int, kind: int) -> int:
    """As ``_access_as``, for other units."""
    return _access_as(state, vaddr, kind)


@entry
def access_beyond_first_level(state: "State", vaddr: int, kind: int, first_level_place: int) -> int:
    """Go on with a user program's access whose page the first level does not let through as a small private one.

    ``first_level_place`` is where it has the page as one, or NIL.
    """
    cpu = state.current[Current.CPU]
    record = state.cpu[cpu]
    if not is_users(vaddr) or record.fast_tag == NO_TAG or record.tlb_variants & UNUSUAL_OF_USERS:
        return _access_as(state, vaddr, kind)
    index = find_small(state, cpu, TlbArray.L2_4K, vaddr)
    if index != NIL and user_allows(state.tlb[index].word, kind):
        _count_second_level_hit(state, kind)
        word = state.tlb[index].word
        put(state, first_level_of(kind), state.tlb[index].key, word)
        return word >> FRAME_SHIFT & PFN_MASK
    searched = first_level_place == NIL and index == NIL
    word = _refill(state, vaddr, kind, Cached.NO_TRANSLATION if searched else Cached.ANYTHING)
    if word == NIL:
        return NIL
    _charge_type(state, word, kind)
    return frame_of(state, word, vaddr)


@entry
def access_after_fault(state: "State", vaddr: int, kind: int) -> int:
    """Translate a user program's access again whose page fault the kernel has served; return the frame, or NIL.

    The fault dropped all that was cached of ``vaddr``, and no kernel brings it back: so no array is searched for it.
    """
    word = _refill(state, vaddr, kind, Cached.NOTHING)
    if word == NIL:
        return NIL
    _charge_type(state, word, kind)
    return frame_of(state, word, vaddr)
