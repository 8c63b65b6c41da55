"""SLUB's debugging: what is written around and into objects, and looked at when they are handed out or come back.

                 left red zone | object ............ | right red zone | link | marks | padding
    free           bb bb bb bb   6b 6b 6b ... 6b a5    bb bb bb bb bb           .       5a 5a
    in use         cc cc cc cc   its user's            cc cc cc cc cc           .       5a 5a

What is wrong with an object is reported once: the bytes are then put right, but the object is not handed out, or
not taken back, and when one is found wrong as it is handed out, its whole slab is taken out of use, since nobody
knows what else was written to.

Linux: mm/slub.c (check_object, init_object, alloc_debug_processing, free_debug_processing, slab_pad_check).
# Differs from Linux: kmalloc keeps room for the size that was asked for, but does not note it.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current
from node.hw.cost import Cost
from node.kalloc.kmem_cache import NO_OBJECT, WORD_BYTES, WORD_SHIFT, SlabError, SlabFlag
from node.kalloc.slab_bytes import fill_bytes, first_unlike
from node.kalloc.slab_report import TRACK_BYTES, TRACK_CPU, TRACK_CPU_SHIFT, TRACK_MADE, TRACK_WHEN, report
from node.kalloc.slub_layout import KMALLOC_SIZE_BYTES
from node.kalloc.slub_records import COUNT_MASK, FROZEN, OBJECTS_SHIFT
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

# Bytes (include/linux/poison.h).
POISON_INUSE: Final = 0x5A  # padding, and what was never handed out
POISON_FREE: Final = 0x6B
POISON_END: Final = 0xA5
RED_INACTIVE: Final = 0xBB
RED_ACTIVE: Final = 0xCC

ALLOCATED: Final = 0  # which of an object's two marks
FREED: Final = 1


@kernel
def track_of(state: "State", cache: int, paddr: int) -> int:
    """Return the address of the marks of an object's last users, or NIL if none are kept."""
    offset = state.slub_cache[cache].track_offset
    return paddr + offset if offset else NIL


@cold_kernel
def set_track(state: "State", cache: int, paddr: int, which: int) -> None:
    """Mark who allocates, or frees, an object: the current CPU, now."""
    marks = track_of(state, cache, paddr)
    if marks == NIL:
        return
    word = (marks + which * TRACK_BYTES) >> WORD_SHIFT
    state.slab_word[word + TRACK_MADE] = 1
    state.slab_word[word + TRACK_CPU] = state.current[Current.CPU] << TRACK_CPU_SHIFT
    state.slab_word[word + TRACK_WHEN] = state.current[Current.CLOCK_PS]


@cold_kernel
def init_object(state: "State", cache: int, paddr: int, red: int) -> None:
    """Write red zones, and poison, as they are to be found next."""
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    if record.slab_flags & SlabFlag.RED_ZONE:
        fill_bytes(state, paddr - slub.red_left, slub.red_left, red)
        end = paddr + record.object_size
        fill_bytes(state, end, slub.inuse_bytes - record.object_size, red)
    if record.slab_flags & SlabFlag.POISON:
        fill_bytes(state, paddr, record.object_size - 1, POISON_FREE)
        fill_bytes(state, paddr + record.object_size - 1, 1, POISON_END)


@cold_kernel
def setup_slab_debug(state: "State", cache: int, slab: int) -> None:
    """Fill a new slab: all of it as padding, each object as one that is free, without marks."""
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    start = slab << PAGE_SHIFT
    if record.slab_flags & SlabFlag.POISON:
        fill_bytes(state, start, PAGE_SIZE << state.page[slab].order, POISON_INUSE)
    paddr = start + slub.red_left
    for _ in range((state.page[slab].private >> OBJECTS_SHIFT) & COUNT_MASK):
        init_object(state, cache, paddr, RED_INACTIVE)
        if slub.track_offset:
            fill_bytes(state, paddr + slub.track_offset, 2 * TRACK_BYTES, 0)
        paddr += record.stride


@kernel
def _bytes_are(state: "State", cache: int, paddr: int, found: int, error: int) -> int:
    """Return 1 if a search for a wrong byte of the object at ``paddr`` found none; else report it, and return 0."""
    if found == NIL:
        return 1
    report(state, error, cache, paddr, track_of(state, cache, paddr))
    return 0


@cold_kernel
def _check_red_zones(state: "State", cache: int, paddr: int, red: int) -> int:
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    left = paddr - slub.red_left
    end = paddr + record.object_size
    found = first_unlike(state, left, slub.red_left, red)
    if not _bytes_are(state, cache, paddr, found, SlabError.LEFT_RED_ZONE):
        fill_bytes(state, left, slub.red_left, red)
        return SlabError.LEFT_RED_ZONE
    found = first_unlike(state, end, slub.inuse_bytes - record.object_size, red)
    if not _bytes_are(state, cache, paddr, found, SlabError.RIGHT_RED_ZONE):
        fill_bytes(state, end, slub.inuse_bytes - record.object_size, red)
        return SlabError.RIGHT_RED_ZONE
    return 0


@cold_kernel
def _check_poison(state: "State", cache: int, paddr: int) -> int:
    size = state.kmem_cache[cache].object_size
    found = first_unlike(state, paddr, size - 1, POISON_FREE)
    if found == NIL:
        found = first_unlike(state, paddr + size - 1, 1, POISON_END)
    if _bytes_are(state, cache, paddr, found, SlabError.POISON):
        return 0
    fill_bytes(state, paddr, size - 1, POISON_FREE)
    fill_bytes(state, paddr + size - 1, 1, POISON_END)
    return SlabError.POISON


@cold_kernel
def _check_padding(state: "State", cache: int, paddr: int) -> None:
    """Report and mend what was written to behind all that is kept of an object; it is in use all the same."""
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    kept = slub.inuse_bytes
    if slub.link_offset >= slub.inuse_bytes:
        kept += WORD_BYTES
    if slub.track_offset:
        kept += 2 * TRACK_BYTES
        if record.slab_flags & SlabFlag.KMALLOC:
            kept += KMALLOC_SIZE_BYTES
    nr_bytes = record.stride - slub.red_left - kept
    found = first_unlike(state, paddr + kept, nr_bytes, POISON_INUSE)
    if not _bytes_are(state, cache, paddr, found, SlabError.PADDING):
        fill_bytes(state, paddr + kept, nr_bytes, POISON_INUSE)


@cold_kernel
def _check_word_rest(state: "State", cache: int, paddr: int) -> None:
    """Report and mend what was written to between the object's end and the next word."""
    end = paddr + state.kmem_cache[cache].object_size
    nr_bytes = paddr + state.slub_cache[cache].inuse_bytes - end
    found = first_unlike(state, end, nr_bytes, POISON_INUSE)
    if not _bytes_are(state, cache, paddr, found, SlabError.PADDING):
        fill_bytes(state, end, nr_bytes, POISON_INUSE)


@cold_kernel
def check_object(state: "State", cache: int, paddr: int, red: int) -> int:
    """Look at an object that is free (RED_INACTIVE) or in use (RED_ACTIVE); return 0, or the SlabError reported."""
    slab_flags = state.kmem_cache[cache].slab_flags
    if slab_flags & SlabFlag.RED_ZONE:
        error = _check_red_zones(state, cache, paddr, red)
        if error:
            return error
    elif slab_flags & SlabFlag.POISON:
        _check_word_rest(state, cache, paddr)
    if slab_flags & SlabFlag.POISON:
        if red == RED_INACTIVE:
            error = _check_poison(state, cache, paddr)
            if error:
                return error
        _check_padding(state, cache, paddr)
    return 0


@cold_kernel
def check_slab_padding(state: "State", cache: int, slab: int) -> None:
    """Report and mend what was written to behind the last object of a slab (slab_pad_check)."""
    record = state.kmem_cache[cache]
    if not record.slab_flags & SlabFlag.POISON:
        return
    nr_bytes = PAGE_SIZE << state.page[slab].order
    rest = nr_bytes % record.stride
    at = (slab << PAGE_SHIFT) + nr_bytes - rest
    if first_unlike(state, at, rest, POISON_INUSE) != NIL:
        report(state, SlabError.PADDING, cache, at, NIL)
        fill_bytes(state, at, rest, POISON_INUSE)


@cold_kernel
def check_whole_slab(state: "State", cache: int, slab: int) -> None:
    """Look at all objects of a slab that is given back."""
    check_slab_padding(state, cache, slab)
    paddr = (slab << PAGE_SHIFT) + state.slub_cache[cache].red_left
    for _ in range((state.page[slab].private >> OBJECTS_SHIFT) & COUNT_MASK):
        check_object(state, cache, paddr, RED_INACTIVE)
        paddr += state.kmem_cache[cache].stride


@cold_kernel
def disable_slab(state: "State", slab: int) -> None:
    """Take a slab out of use: none of its objects is free, and none will be taken back."""
    page = state.page[slab]
    objects = (page.private >> OBJECTS_SHIFT) & COUNT_MASK
    page.index = NO_OBJECT
    page.private = (objects << OBJECTS_SHIFT) | objects | FROZEN


@cold_kernel
def allow_alloc(state: "State", cache: int, slab: int, paddr: int) -> int:
    """Prepare a free object to be handed out, if nothing is wrong with it; return whether (alloc_debug_processing)."""
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_DEBUG]
    if state.kmem_cache[cache].slab_flags & SlabFlag.CONSISTENCY_CHECKS:
        check_slab_padding(state, cache, slab)
        if check_object(state, cache, paddr, RED_INACTIVE):
            return 0
    init_object(state, cache, paddr, RED_ACTIVE)
    set_track(state, cache, paddr, ALLOCATED)
    return 1


@cold_kernel
def refuse_free(state: "State", cache: int, slab: int, paddr: int) -> int:
    """Prepare an object that is not on its slab's freelist to be taken back; return 0, or what is wrong with it."""
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_DEBUG]
    if state.kmem_cache[cache].slab_flags & SlabFlag.CONSISTENCY_CHECKS:
        check_slab_padding(state, cache, slab)
        error = check_object(state, cache, paddr, RED_ACTIVE)
        if error:
            return error
    set_track(state, cache, paddr, FREED)
    init_object(state, cache, paddr, RED_INACTIVE)
    return 0
