"""SLAB: what finds misuse, on request: poison, red zones and the last user of each object.

    POISON       a free object's bytes are 6b 6b ... a5, one that was just handed out has 5a 5a ... a5
    RED_ZONE     the words before and behind it say whether it is free
    STORE_USER   the word behind that says who had it in hand last, and when

An object is looked at when it is handed out (was it written to while it was free?), when it comes back (is it in
use at all, and did its user write past it?), and before its slab is given back. What is found goes to
node/kalloc/slab_report.py and is counted in the cache's ``errors``.

    | fill | red zone | object ........ a5 | red zone | last user |
    ^ start            ^ address of its user

Linux: mm/slab.c with CONFIG_DEBUG_SLAB (cache_alloc_debugcheck_after, cache_free_debugcheck, verify_redzone_free,
check_poison_obj, slab_destroy_debugcheck), include/linux/poison.h.
# Differs from Linux: the last user is a CPU and a time, not the address of code, and so is it in the report. An
# object that is freed twice stays free; Linux says so and puts it among the free ones once more.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current
from node.hw.cost import Cost
from node.kalloc.kmem_cache import WORD_BYTES, WORD_SHIFT, SlabError, SlabFlag
from node.kalloc.slab_layout import RED_ZONE_BYTES, object_end
from node.kalloc.slab_report import NR_KEPT, report
from shared.constants import NIL, PS_PER_NS
from shared.jit import cold_kernel, kernel
from shared.wrap64 import shift_left64, to_signed

if TYPE_CHECKING:
    from node.state import State

RED_INACTIVE: Final = 0x09F911029D74E35B
RED_ACTIVE: Final = to_signed(0xD84156C5635688C0)
POISON_FREE_WORD: Final = 0x6B6B6B6B6B6B6B6B  # POISON_FREE, eight times
POISON_IN_USE_WORD: Final = 0x5A5A5A5A5A5A5A5A  # POISON_INUSE
POISON_END: Final = 0xA5
BITS_PER_BYTE: Final = 8
BYTE_MASK: Final = 0xFF
# A last user's word: (ns << 8) | (CPU + 1) << 1 | 1 if it freed the object.
USER_TIME_SHIFT: Final = 8
USER_CPU_SHIFT: Final = 1
USER_CPU_MASK: Final = 0x7F


# --- poison ---------------------------------------------------------------------------------------------


@kernel
def _kept_bits(nr_bytes: int) -> int:
    """Return the bits of a word that its first ``nr_bytes``, at least 1, take."""
    return -1 if nr_bytes >= WORD_BYTES else (1 << (nr_bytes * BITS_PER_BYTE)) - 1


@kernel
def poison_word(nr_bytes: int, poison: int) -> int:
    """Return the poison of the word at which ``nr_bytes`` of an object are left."""
    if nr_bytes > WORD_BYTES:
        return poison
    shift = (nr_bytes - 1) * BITS_PER_BYTE
    ended = (poison & ~shift_left64(BYTE_MASK, shift)) | shift_left64(POISON_END, shift)
    return ended & _kept_bits(nr_bytes)


@kernel
def _poison(state: "State", cache: int, start: int, poison: int) -> None:
    word = (start + state.slab_cache[cache].object_offset) >> WORD_SHIFT
    left = state.kmem_cache[cache].object_size
    while left > 0:
        others = state.slab_word[word] & ~_kept_bits(left)
        state.slab_word[word] = others | poison_word(left, poison)
        word += 1
        left -= WORD_BYTES


@kernel
def _is_poisoned(state: "State", cache: int, start: int) -> int:
    """Return whether a free object's bytes are as they were left."""
    word = (start + state.slab_cache[cache].object_offset) >> WORD_SHIFT
    left = state.kmem_cache[cache].object_size
    while left > 0:
        if state.slab_word[word] & _kept_bits(left) != poison_word(left, POISON_FREE_WORD):
            return 0
        word += 1
        left -= WORD_BYTES
    return 1


@kernel
def poison_free(state: "State", cache: int, start: int) -> None:
    """Poison a free object again, once the free list is no longer in it."""
    if state.kmem_cache[cache].slab_flags & SlabFlag.POISON:
        _poison(state, cache, start, POISON_FREE_WORD)


# --- red zones and last users ---------------------------------------------------------------------------


@kernel
def _left_zone(state: "State", cache: int, start: int) -> int:
    return (start + state.slab_cache[cache].object_offset - RED_ZONE_BYTES) >> WORD_SHIFT


@kernel
def _right_zone(state: "State", cache: int, start: int) -> int:
    return (start + object_end(state, cache)) >> WORD_SHIFT


@kernel
def user_word(state: "State", cache: int, start: int) -> int:
    """Return the index in ``slab_word`` of an object's last user."""
    zone_bytes = RED_ZONE_BYTES if state.kmem_cache[cache].slab_flags & SlabFlag.RED_ZONE else 0
    return (start + object_end(state, cache) + zone_bytes) >> WORD_SHIFT


@kernel
def _mark(state: "State", cache: int, start: int, zone: int) -> None:
    """Set both red zones, and the last user, which is now this CPU."""
    flags = state.kmem_cache[cache].slab_flags
    if flags & SlabFlag.RED_ZONE:
        state.slab_word[_left_zone(state, cache, start)] = zone
        state.slab_word[_right_zone(state, cache, start)] = zone
    if flags & SlabFlag.STORE_USER:
        when = (state.current[Current.CLOCK_PS] // PS_PER_NS) << USER_TIME_SHIFT
        who = (state.current[Current.CPU] + 1) << USER_CPU_SHIFT
        is_free = 1 if zone == RED_INACTIVE else 0
        state.slab_word[user_word(state, cache, start)] = when | who | is_free


@cold_kernel
def slab_error(state: "State", error: int, cache: int, start: int) -> int:
    """Count and report what is wrong with the object at ``start``, and who had it last; return ``error``."""
    state.slab_cache[cache].errors += 1
    report(state, error, cache, start + state.slab_cache[cache].object_offset, NIL)
    if state.kmem_cache[cache].slab_flags & SlabFlag.STORE_USER:
        user = state.slab_word[user_word(state, cache, start)]
        made = state.slab_report[1 + (state.slab_report[0].serial - 1) % NR_KEPT]
        cpu = ((user >> USER_CPU_SHIFT) & USER_CPU_MASK) - 1
        when = (user >> USER_TIME_SHIFT) * PS_PER_NS
        if cpu >= 0 and user & 1:
            made.free_cpu = cpu
            made.free_ps = when
        elif cpu >= 0:
            made.alloc_cpu = cpu
            made.alloc_ps = when
    return error


# --- when an object is looked at ------------------------------------------------------------------------


@kernel
def start_object(state: "State", cache: int, start: int) -> None:
    """Mark an object of a new slab as free, by nobody (cache_init_objs_debug)."""
    flags = state.kmem_cache[cache].slab_flags
    if flags & SlabFlag.RED_ZONE:
        state.slab_word[_left_zone(state, cache, start)] = RED_INACTIVE
        state.slab_word[_right_zone(state, cache, start)] = RED_INACTIVE
    if flags & SlabFlag.STORE_USER:
        state.slab_word[user_word(state, cache, start)] = 0
    poison_free(state, cache, start)


@kernel
def check_free(state: "State", cache: int, start: int) -> int:
    """Look whether a free object was written to; return 0, or the SlabError that was reported."""
    flags = state.kmem_cache[cache].slab_flags
    error = 0
    if flags & SlabFlag.POISON and not _is_poisoned(state, cache, start):
        error = slab_error(state, SlabError.POISON, cache, start)
    if flags & SlabFlag.RED_ZONE:
        if state.slab_word[_left_zone(state, cache, start)] != RED_INACTIVE:
            error = slab_error(state, SlabError.LEFT_RED_ZONE, cache, start)
        if state.slab_word[_right_zone(state, cache, start)] != RED_INACTIVE:
            error = slab_error(state, SlabError.RIGHT_RED_ZONE, cache, start)
    return error


@cold_kernel
def debug_handed_out(state: "State", cache: int, start: int) -> None:
    """Check a free object that is handed out now, and mark it (cache_alloc_debugcheck_after)."""
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_DEBUG]
    check_free(state, cache, start)
    if state.kmem_cache[cache].slab_flags & SlabFlag.POISON:
        _poison(state, cache, start, POISON_IN_USE_WORD)
    _mark(state, cache, start, RED_ACTIVE)


@cold_kernel
def debug_coming_back(state: "State", cache: int, start: int) -> int:
    """Check an object that is in use and is freed now, and mark it (cache_free_debugcheck).

    Returns 0, or a SlabError: the object is taken back all the same.
    """
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_DEBUG]
    flags = state.kmem_cache[cache].slab_flags
    error = 0
    if flags & SlabFlag.RED_ZONE:
        if state.slab_word[_left_zone(state, cache, start)] != RED_ACTIVE:
            error = slab_error(state, SlabError.LEFT_RED_ZONE, cache, start)
        if state.slab_word[_right_zone(state, cache, start)] != RED_ACTIVE:
            error = slab_error(state, SlabError.RIGHT_RED_ZONE, cache, start)
    poison_free(state, cache, start)
    _mark(state, cache, start, RED_INACTIVE)
    return error
