"""SLAB: how a slab is laid out, decided once for a cache: order, objects, where the free list is, colours.

A slab is a block of frames with equal objects, and an array of small numbers that says which are free. The
array may stand in three places:

    ON (6.1)        | colour | object 0 | object 1 | ... | object n-1 |  rest  | 0 1 2 .. n-1 |
    OBJECT (6.1)    | colour | object 0 | object 1 | ... | [0 1 2 .. n-1]  the last free object |  rest  |
    ON (lecture)    | colour | descriptor, 0 1 2 .. n-1 | object 0 | ... | object n-1 |  rest  |
    OFF (lecture)   | colour | object 0 | ... | object n-1 |  rest  |       descriptor, 0 1 2 .. n-1 in a
                                                                          general cache's object elsewhere

6.1 keeps a byte for each object and the rest of the descriptor in ``struct page``; where the array is no
larger than an object it costs nothing, since the object that is handed out last holds it until then. The
kernel of the lectures (2.6) keeps a descriptor of 48 bytes and four bytes for each object, off the slab for
objects of 512 bytes and more: a power of two would else waste the room of one object in every slab.

The order is the first of 0, 1, ... at which at most an eighth of the slab is left over, but not above 1 (0 on
machines up to 32 MiB) unless one object needs more. What is left over is spent on *colours*: each new slab of a
cache starts its objects one cache line further, and after the last colour at the front again, so that the first
objects of all slabs do not compete for the same lines of the data cache.

Debugging puts words around the object:

    | fill | red zone 8 | object, rounded up to words | red zone 8 | last user 8 | fill |    stride bytes in all
                        ^ the address that a user gets, ``object_offset`` bytes in

Linux 6.1: mm/slab.c (cache_estimate, calculate_slab_order, set_objfreelist_slab_cache, set_on_slab_cache,
__kmem_cache_create), mm/slab_common.c (calculate_alignment). The lecture's: mm/slab.c of Linux 2.6.20, and
M. Gorman, Understanding the Linux Virtual Memory Manager, chapter 8.

6.1 also puts the array off the slab, but only for caches with a constructor or freed by RCU, which are not
modelled; for all others the rule (a general cache's object of at most half the size, holding more bytes than
an object has) can't be met.

# Differs from Linux: a cache that aligns its objects to more than a word can have red zones and last users too;
# SLAB of 6.1 silently drops them. As in SLUB, what is before the object then fills a whole alignment.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Era, Knob
from node.kalloc.cache_list import align_up
from node.kalloc.kmem_cache import MAX_BLOCK_ORDER, WORD_BYTES, SlabFlag
from shared.constants import CACHE_LINE_BYTES, MIB, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

SLAB_CACHE = np.dtype(
    [
        ("placement", np.int32),  # Placement of the free list
        ("colours", np.int32),  # how many starts there are; 0 is as 1
        ("colour_bytes", np.int32),  # from one colour to the next
        ("object_offset", np.int32),  # from an object's start to what its user gets
        ("descriptor_bytes", np.int32),  # of the free list, with the lecture's descriptor
        ("index_offset", np.int32),  # of the numbers within those
        ("index_shift", np.int32),  # bytes of a number, as a power of two
        ("limit", np.int32),  # objects that a CPU's array holds (cachep->limit)
        ("batchcount", np.int32),  # objects that a refill or a flush moves
        ("shared", np.int32),  # batches that a node's shared array holds; 0: there is none
        ("num_active", np.int64),  # objects out of their slabs: in use or in arrays
        ("num_allocations", np.int64),  # objects taken out of slabs
        ("high_mark", np.int64),  # most that num_active was
        ("grown", np.int64),  # slabs added
        ("reaped", np.int64),  # slabs that cache_reap gave back
        ("errors", np.int64),  # SlabErrors found
        ("max_freeable", np.int64),  # most free slabs seen on a node
        ("node_allocs", np.int64),  # objects from another node
        ("node_frees", np.int64),  # objects given back to another node
        ("refill_shared", np.int64),  # objects that refills took from a shared array,
        ("refill_partial", np.int64),  # from partial slabs,
        ("refill_free", np.int64),  # from slabs without an object in use,
        ("refill_new", np.int64),  # from slabs that were made for it
        ("grow_failed", np.int64),  # slabs that there was no memory for
    ],
    align=True,
)


class Placement(IntEnum):
    """Where a slab's free list stands."""

    ON = 0
    OBJECT = 1
    OFF = 2


RED_ZONE_BYTES: Final = 8  # each of two; REDZONE_ALIGN is as much on x86-64
DESCRIPTOR_BYTES: Final = 48  # struct slab of 2.6 on 64 bits: list, colour, s_mem, inuse, free, nid
INDEX_SHIFT_6_1: Final = 0  # freelist_idx_t is a byte: FREELIST_BYTE_INDEX
INDEX_SHIFT_LECTURE: Final = 2  # kmem_bufctl_t is an unsigned int
MIN_OBJECT_BYTES: Final = 16  # SLAB_OBJ_MIN_SIZE: a page has no more of them than a byte counts
MAX_OBJECTS_6_1: Final = 255  # SLAB_OBJ_MAX_NUM
OFF_SLAB_MIN_BYTES: Final = PAGE_SIZE >> 3  # of 2.6; PAGE_SIZE >> 5 from 3.13 to 4.5
MAX_ORDER_SMALL: Final = 0  # SLAB_MAX_ORDER_LO
MAX_ORDER_LARGE: Final = 1  # SLAB_MAX_ORDER_HI, with more than 32 MiB
SMALL_MACHINE_PAGES: Final = 32 * MIB // PAGE_SIZE
WASTE_SHARE: Final = 8  # an eighth of the slab may be left over
_WORDS_AROUND: Final = SlabFlag.RED_ZONE | SlabFlag.STORE_USER


@kernel
def _bits(value: int) -> int:
    """Return the position of the highest bit set, from 1; 0 for 0 (fls)."""
    found = 0
    while value >> found:
        found += 1
    return found


@kernel
def _settle_flags(state: "State", cache: int) -> None:
    """Drop red zones and last users from a large object that would then need twice the memory.

    CONFIG_DEBUG_SLAB leaves them out by the same rule.
    """
    record = state.kmem_cache[cache]
    last = record.object_size - 1
    if record.object_size < PAGE_SIZE:
        return
    if _bits(last) != _bits(last + 2 * RED_ZONE_BYTES + WORD_BYTES):
        record.slab_flags &= ~_WORDS_AROUND


@kernel
def object_end(state: "State", cache: int) -> int:
    """Return where the words behind an object's bytes are, from its start."""
    return state.slab_cache[cache].object_offset + align_up(state.kmem_cache[cache].object_size, WORD_BYTES)


@kernel
def _settle_stride(state: "State", cache: int) -> None:
    """Set alignment, stride and where the user's part begins (first half of __kmem_cache_create)."""
    record = state.kmem_cache[cache]
    slab_cache = state.slab_cache[cache]
    _settle_flags(state, cache)
    flags = record.slab_flags
    record.align = max(record.align, WORD_BYTES)
    slab_cache.object_offset = record.align if flags & SlabFlag.RED_ZONE else 0
    stride = object_end(state, cache)
    if flags & SlabFlag.RED_ZONE:
        stride += RED_ZONE_BYTES
    if flags & SlabFlag.STORE_USER:
        stride += WORD_BYTES
    stride = align_up(stride, record.align)
    if slab_cache.index_shift == INDEX_SHIFT_6_1 and stride < MIN_OBJECT_BYTES:
        stride = align_up(MIN_OBJECT_BYTES, record.align)
    record.stride = stride


@kernel
def descriptor_bytes(state: "State", cache: int, nr_objects: int) -> int:
    """Return how many bytes the free list of ``nr_objects`` takes, alignment on the slab included."""
    slab_cache = state.slab_cache[cache]
    nr_bytes = slab_cache.index_offset + (nr_objects << slab_cache.index_shift)
    if slab_cache.index_offset and slab_cache.placement == Placement.ON:
        return align_up(nr_bytes, state.kmem_cache[cache].align)
    return nr_bytes


@kernel
def _room_needed(state: "State", cache: int, nr_objects: int) -> int:
    """Return how many bytes of a slab ``nr_objects`` take, with the free list if it is on the slab."""
    objects = nr_objects * state.kmem_cache[cache].stride
    if state.slab_cache[cache].placement == Placement.ON:
        return objects + descriptor_bytes(state, cache, nr_objects)
    return objects


@kernel
def _estimate(state: "State", cache: int, order: int) -> int:
    """Return how many objects a slab of ``order`` has (cache_estimate)."""
    slab_bytes = PAGE_SIZE << order
    slab_cache = state.slab_cache[cache]
    stride = state.kmem_cache[cache].stride
    if slab_cache.placement != Placement.ON:
        return slab_bytes // stride
    nr_objects = max(slab_bytes - slab_cache.index_offset, 0) // (stride + (1 << slab_cache.index_shift))
    # Only the lecture's descriptor is padded, so one object less is always enough.
    if nr_objects and _room_needed(state, cache, nr_objects) > slab_bytes:
        nr_objects -= 1
    return nr_objects


@kernel
def slab_max_order(state: "State") -> int:
    """Return the order that slabs do not pass while one object fits."""
    nr_pages = 0
    for zone in range(len(state.zone)):
        nr_pages += state.zone[zone].managed
    return MAX_ORDER_LARGE if nr_pages > SMALL_MACHINE_PAGES else MAX_ORDER_SMALL


@kernel
def _too_many(state: "State", cache: int, nr_objects: int) -> int:
    """Return whether the free list cannot number so many objects, or is too large to be off the slab."""
    slab_cache = state.slab_cache[cache]
    if slab_cache.index_shift == INDEX_SHIFT_6_1:
        return 1 if nr_objects > MAX_OBJECTS_6_1 else 0
    if slab_cache.placement == Placement.OFF:
        # The descriptor must not be larger than an object, or it would need one off the slab itself.
        return 1 if descriptor_bytes(state, cache, nr_objects) > state.kmem_cache[cache].stride else 0
    return 0


@kernel
def _calculate_order(state: "State", cache: int, placement: int) -> int:
    """Choose order and number of objects with the free list there; return the bytes left over, or NIL."""
    record = state.kmem_cache[cache]
    slab_cache = state.slab_cache[cache]
    slab_cache.placement = placement
    left_over = NIL
    max_order = slab_max_order(state)
    for order in range(MAX_BLOCK_ORDER + 1):
        nr_objects = _estimate(state, cache, order)
        if nr_objects == 0:
            continue
        if _too_many(state, cache, nr_objects):
            break
        record.order = order
        record.objects_per_slab = nr_objects
        slab_bytes = PAGE_SIZE << order
        left_over = slab_bytes - _room_needed(state, cache, nr_objects)
        # Objects that a shrinker frees are often wanted where a block of frames is hard to get.
        if record.slab_flags & SlabFlag.RECLAIM_ACCOUNT or order >= max_order:
            break
        if left_over * WASTE_SHARE <= slab_bytes:
            break
    return left_over


@kernel
def _place_6_1(state: "State", cache: int) -> int:
    record = state.kmem_cache[cache]
    left_over = _calculate_order(state, cache, Placement.OBJECT)
    if left_over != NIL and descriptor_bytes(state, cache, record.objects_per_slab) <= record.object_size:
        return left_over
    return _calculate_order(state, cache, Placement.ON)


@kernel
def _place_lecture(state: "State", cache: int) -> int:
    record = state.kmem_cache[cache]
    if record.object_size < OFF_SLAB_MIN_BYTES:
        return _calculate_order(state, cache, Placement.ON)
    left_over = _calculate_order(state, cache, Placement.OFF)
    if left_over == NIL:
        return _calculate_order(state, cache, Placement.ON)
    # Where it fits into what is left over, it costs nothing on the slab.
    state.slab_cache[cache].placement = Placement.ON
    on_slab = descriptor_bytes(state, cache, record.objects_per_slab)
    if left_over >= on_slab:
        return left_over - on_slab
    state.slab_cache[cache].placement = Placement.OFF
    return left_over


@kernel
def slab_lay_out(state: "State", cache: int) -> int:
    """Lay out the slabs of a new cache whose object size, align and flags are set; return 0.

    Returns NIL if no slab can hold an object. Flags that cannot be kept are cleared in the cache's record.
    """
    record = state.kmem_cache[cache]
    slab_cache = state.slab_cache[cache]
    is_lecture = state.knob[Knob.ERA] == Era.LECTURE
    slab_cache.index_shift = INDEX_SHIFT_LECTURE if is_lecture else INDEX_SHIFT_6_1
    slab_cache.index_offset = DESCRIPTOR_BYTES if is_lecture else 0
    _settle_stride(state, cache)
    left_over = _place_lecture(state, cache) if is_lecture else _place_6_1(state, cache)
    if left_over == NIL:
        return NIL
    slab_cache.descriptor_bytes = descriptor_bytes(state, cache, record.objects_per_slab)
    slab_cache.colour_bytes = max(CACHE_LINE_BYTES, record.align)
    slab_cache.colours = left_over // slab_cache.colour_bytes
    return 0


@kernel
def objects_begin(state: "State", cache: int) -> int:
    """Return where a slab's first object is, in bytes behind its colour: behind the lecture's descriptor."""
    slab_cache = state.slab_cache[cache]
    if slab_cache.placement == Placement.ON and slab_cache.index_offset:
        return slab_cache.descriptor_bytes
    return 0


@kernel
def list_on_slab(state: "State", cache: int) -> int:
    """Return where the free list of a slab is that has it ON, in bytes from the slab's start, colour apart.

    In 6.1 it ends the slab whatever the colour is; the lecture's moves with the colour.
    """
    if state.slab_cache[cache].index_offset:
        return 0
    return (1 << PAGE_SHIFT + state.kmem_cache[cache].order) - state.slab_cache[cache].descriptor_bytes
