"""SLAB: one slab, its frames, its descriptor, and its list of free objects.

A slab's descriptor lies over the descriptor of its first frame, as ``struct slab`` does in Linux:

    mapping   the cache (of all frames of the slab)         word   objects that are out of the slab
    private   bytes from the slab's start to object 0       index  address of the free list, NIL while there is none
    next, prev, and which list they belong to: node/kalloc/slab_lists.py

The free list is a stack of object numbers, in memory. Those above ``word`` are free, those below are stale:

    word = 3   |  .  .  .  5  1  0  |      the next to go out is object 5; what comes back is put before it

Linux: mm/slab.c (kmem_getpages, kmem_freepages, alloc_slabmgmt, cache_init_objs, slab_get_obj, slab_put_obj,
slab_destroy), mm/slab.h (struct slab).
# Differs from Linux: the lecture's kmem_bufctl_t array is a chain of numbers; here it is a stack too, which hands
# out objects in the same order. Of its descriptor only the room is taken: its fields are where 6.1 has them.
"""

from typing import TYPE_CHECKING, Final

from node.counters import VmStat
from node.joints import alloc_frames, free_frames, slab_kfree, slab_kmalloc
from node.kalloc.kmem_cache import WORD_BYTES, WORD_SHIFT, SlabFlag
from node.kalloc.slab_bytes import clear_frames
from node.kalloc.slab_debug import check_free, poison_free, start_object
from node.kalloc.slab_layout import Placement, list_on_slab, objects_begin
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import Gfp
from shared.jit import cold_kernel, hot_kernel, kernel
from shared.wrap64 import shift_left64

if TYPE_CHECKING:
    from node.state import State

BITS_PER_BYTE_SHIFT: Final = 3
_BYTE_IN_WORD: Final = WORD_BYTES - 1
# What the caller of an allocation says of its own object, not of the slab (GFP_SLAB_BUG_MASK, kmem_getpages).
_OF_THE_OBJECT: Final = (
    Gfp.DMA | Gfp.DMA32 | Gfp.HIGHMEM | Gfp.MOVABLE | Gfp.RECLAIMABLE | Gfp.ZERO | Gfp.COMP
)


# --- the free list --------------------------------------------------------------------------------------


@hot_kernel
def _place_of(state: "State", slab: int, position: int) -> int:
    """Return the address of a position's number on a slab's free list."""
    page = state.page[slab]
    slab_cache = state.slab_cache[page.mapping]
    return page.index + slab_cache.index_offset + (position << slab_cache.index_shift)


@hot_kernel
def _number_mask(state: "State", slab: int) -> int:
    """Return the bits of a number of the free list: one byte, or four."""
    nr_bytes = 1 << state.slab_cache[state.page[slab].mapping].index_shift
    return (1 << (nr_bytes << BITS_PER_BYTE_SHIFT)) - 1


@kernel
def free_number(state: "State", slab: int, position: int) -> int:
    """Return the object that stands at ``position`` of a slab's free list."""
    at = _place_of(state, slab, position)
    word = state.slab_word[at >> WORD_SHIFT]
    return (word >> ((at & _BYTE_IN_WORD) << BITS_PER_BYTE_SHIFT)) & _number_mask(state, slab)


@kernel
def set_free_number(state: "State", slab: int, position: int, number: int) -> None:
    """Write an object's number at ``position`` of a slab's free list."""
    at = _place_of(state, slab, position)
    shift = (at & _BYTE_IN_WORD) << BITS_PER_BYTE_SHIFT
    kept = state.slab_word[at >> WORD_SHIFT] & ~shift_left64(_number_mask(state, slab), shift)
    state.slab_word[at >> WORD_SHIFT] = kept | shift_left64(number, shift)


# --- objects --------------------------------------------------------------------------------------------


@hot_kernel
def slab_of(state: "State", paddr: int) -> int:
    """Return the first frame of the slab that an address, in a frame of SLAB's, belongs to."""
    pfn = paddr >> PAGE_SHIFT
    return pfn & -(1 << state.kmem_cache[state.page[pfn].mapping].order)


@hot_kernel
def first_object(state: "State", slab: int) -> int:
    """Return the address of a slab's object 0."""
    return (slab << PAGE_SHIFT) + state.page[slab].private


@kernel
def object_number(state: "State", slab: int, paddr: int) -> int:
    """Return the number of the object that starts at ``paddr``, or NIL if none does."""
    record = state.kmem_cache[state.page[slab].mapping]
    offset = paddr - first_object(state, slab)
    number = offset // record.stride
    if offset < 0 or number * record.stride != offset or number >= record.objects_per_slab:
        return NIL
    return number


@kernel
def get_object(state: "State", slab: int) -> int:
    """Take the next free object out of a slab that has one; return its address (slab_get_obj)."""
    page = state.page[slab]
    number = free_number(state, slab, page.word)
    page.word += 1
    return first_object(state, slab) + number * state.kmem_cache[page.mapping].stride


@kernel
def put_object(state: "State", slab: int, paddr: int) -> None:
    """Put an object back into its slab; one of a full slab may have to hold the free list (slab_put_obj)."""
    page = state.page[slab]
    cache = page.mapping
    page.word -= 1
    if page.index == NIL:
        page.index = paddr + state.slab_cache[cache].object_offset
    number = (paddr - first_object(state, slab)) // state.kmem_cache[cache].stride
    set_free_number(state, slab, page.word, number)


@kernel
def give_up_free_list(state: "State", slab: int) -> None:
    """Note that a slab is full: an object that held its free list is its user's now."""
    page = state.page[slab]
    cache = page.mapping
    if state.slab_cache[cache].placement == Placement.OBJECT:
        poison_free(state, cache, page.index - state.slab_cache[cache].object_offset)
        page.index = NIL


# --- making and ending a slab ---------------------------------------------------------------------------


@kernel
def _slab_gfp(state: "State", cache: int, gfp: int) -> int:
    """Return how a slab's frames are asked for: as the object is, from where the cache wants them."""
    flags = state.kmem_cache[cache].slab_flags
    asked = (gfp & ~_OF_THE_OBJECT) | Gfp.COMP
    if flags & SlabFlag.CACHE_DMA:
        asked |= Gfp.DMA
    if flags & SlabFlag.CACHE_DMA32:
        asked |= Gfp.DMA32
    if flags & SlabFlag.RECLAIM_ACCOUNT:
        asked |= Gfp.RECLAIMABLE
    return asked


@kernel
def count_frames(state: "State", cache: int, nr_frames: int) -> None:
    """Account frames that a cache took, or with a minus gave back (account_slab)."""
    reclaimable = state.kmem_cache[cache].slab_flags & SlabFlag.RECLAIM_ACCOUNT
    state.vm_stat[VmStat.NR_SLAB_RECLAIMABLE if reclaimable else VmStat.NR_SLAB_UNRECLAIMABLE] += nr_frames


@kernel
def _claim_frames(state: "State", cache: int, slab: int, nr_frames: int) -> None:
    for pfn in range(slab, slab + nr_frames):
        page = state.page[pfn]
        page.page_flags |= PageFlag.SLAB
        page.mapping = cache
    clear_frames(state, slab, nr_frames)
    count_frames(state, cache, nr_frames)
    state.kmem_cache[cache].nr_slabs += 1


@cold_kernel
def _release_frames(state: "State", slab: int) -> None:
    cache = state.page[slab].mapping
    order = state.kmem_cache[cache].order
    for pfn in range(slab, slab + (1 << order)):
        page = state.page[pfn]
        page.page_flags &= ~PageFlag.SLAB
        page.mapping = 0
    head = state.page[slab]
    head.index = 0
    head.private = 0
    head.word = 0
    count_frames(state, cache, -(1 << order))
    state.kmem_cache[cache].nr_slabs -= 1
    free_frames(state, slab, order)


@kernel
def _find_free_list(state: "State", slab: int, colour_bytes: int, gfp: int) -> int:
    """Set where a new slab's objects and free list begin; return 0, or NIL if there is no memory for the list."""
    page = state.page[slab]
    cache = page.mapping
    slab_cache = state.slab_cache[cache]
    start = slab << PAGE_SHIFT
    page.private = colour_bytes + objects_begin(state, cache)
    page.word = 0
    if slab_cache.placement == Placement.OFF:
        page.index = slab_kmalloc(state, slab_cache.descriptor_bytes, gfp & ~_OF_THE_OBJECT)
        return NIL if page.index == NIL else 0
    if slab_cache.placement == Placement.OBJECT:
        last = state.kmem_cache[cache].objects_per_slab - 1
        page.index = start + page.private + last * state.kmem_cache[cache].stride + slab_cache.object_offset
        return 0
    page.index = start + list_on_slab(state, cache) + (colour_bytes if slab_cache.index_offset else 0)
    return 0


@cold_kernel
def make_slab(state: "State", cache: int, gfp: int, colour_bytes: int) -> int:
    """Return a new slab without an object in use, on no list yet; NIL if there is no memory (cache_grow_begin)."""
    record = state.kmem_cache[cache]
    slab = alloc_frames(state, record.order, _slab_gfp(state, cache, gfp))
    if slab == NIL:
        return NIL
    _claim_frames(state, cache, slab, 1 << record.order)
    if _find_free_list(state, slab, colour_bytes, gfp) == NIL:
        state.page[slab].index = 0
        _release_frames(state, slab)
        return NIL
    for number in range(record.objects_per_slab):
        start_object(state, cache, first_object(state, slab) + number * record.stride)
    for number in range(record.objects_per_slab):
        set_free_number(state, slab, number, number)
    return slab


@cold_kernel
def end_slab(state: "State", slab: int) -> None:
    """Give back a slab that is on no list and has no object in use (slab_destroy)."""
    page = state.page[slab]
    cache = page.mapping
    free_list = page.index
    placement = state.slab_cache[cache].placement
    if placement == Placement.OBJECT:
        poison_free(state, cache, free_list - state.slab_cache[cache].object_offset)
    for number in range(state.kmem_cache[cache].objects_per_slab):
        check_free(state, cache, first_object(state, slab) + number * state.kmem_cache[cache].stride)
    _release_frames(state, slab)
    if placement == Placement.OFF:
        slab_kfree(state, free_list)
