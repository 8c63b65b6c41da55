"""The list of caches: making one, or sharing one that exists, and ending it.

    create("a", 184)   --> no cache suits ------------> cache 7, users 1
    create("b", 190)   --> cache 7 has the same stride, -> cache 7, users 2
                           a fitting alignment and flags
    destroy(7)         --> users 1
    destroy(7)         --> users 0: its slabs go back

Caches that differ in nothing but their name are merged, which keeps few slabs half empty instead of many. A
shared cache goes by its first user's name in /proc/slabinfo, and its object size is that of the largest. The
oldest cache that suits is taken. Caches that are debugged are never shared, since their layout depends on the
object's exact size.

Linux: mm/slab_common.c (kmem_cache_create_usercopy, find_mergeable, calculate_alignment, kmem_cache_destroy).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob, Request
from node.joints import (
    slab_cache_create,
    slab_cache_destroy,
    slab_cache_shrink,
    slob_cache_create,
    slob_cache_destroy,
    slob_cache_shrink,
    slub_cache_create,
    slub_cache_destroy,
    slub_cache_shrink,
)
from node.kalloc.kmem_cache import KMALLOC_MAX_SIZE, MAX_CACHES, WORD_BYTES, Allocator, SlabFlag, pack_name
from node.kalloc.slab_report import forget_reports
from shared.constants import CACHE_LINE_BYTES, NIL
from shared.jit import cold_kernel, entry, kernel

if TYPE_CHECKING:
    from node.state import State

NEVER_MERGE: Final = (
    SlabFlag.RED_ZONE | SlabFlag.POISON | SlabFlag.STORE_USER | SlabFlag.KMALLOC | SlabFlag.NO_MERGE
)
MERGE_SAME: Final = SlabFlag.RECLAIM_ACCOUNT | SlabFlag.CACHE_DMA | SlabFlag.CACHE_DMA32


@kernel
def align_up(value: int, align: int) -> int:
    """Return the least multiple of ``align``, a power of two, that is not below ``value``."""
    return (value + align - 1) & -align


@kernel
def object_alignment(slab_flags: int, align: int, size: int) -> int:
    """Return how the objects of a cache are aligned: by words, and by lines or parts of one if flags say so."""
    if slab_flags & SlabFlag.HWCACHE_ALIGN:
        line = CACHE_LINE_BYTES
        while size <= line // 2:
            line //= 2
        align = max(align, line)
    return align_up(max(align, WORD_BYTES), WORD_BYTES)


@kernel
def _suits(state: "State", cache: int, size: int, align: int, slab_flags: int) -> int:
    found = state.kmem_cache[cache]
    if found.object_size == 0 or found.slab_flags & NEVER_MERGE or size > found.stride:
        return 0
    if (slab_flags ^ found.slab_flags) & MERGE_SAME or found.stride & (align - 1):
        return 0
    if found.stride - size >= WORD_BYTES:
        return 0
    # SLAB aligns by more than the stride: its colours shift a slab's first object.
    is_slab = state.knob[Knob.ALLOCATOR] == Allocator.SLAB
    return 0 if is_slab and (align > found.align or found.align % align) else 1


@kernel
def find_mergeable(state: "State", size: int, align: int, slab_flags: int) -> int:
    """Return the oldest cache that serves objects like these too, or NIL."""
    if slab_flags & NEVER_MERGE or state.knob[Knob.ALLOCATOR] == Allocator.SLOB:
        return NIL
    size = align_up(size, WORD_BYTES)
    align = object_alignment(slab_flags, align, size)
    size = align_up(size, align)
    oldest = NIL
    for cache in range(1, MAX_CACHES):
        if _suits(state, cache, size, align, slab_flags) and (
            oldest == NIL or state.kmem_cache[cache].serial < state.kmem_cache[oldest].serial
        ):
            oldest = cache
    return oldest


@cold_kernel
def take_cache(state: "State", size: int, align: int, slab_flags: int) -> int:
    """Return the number of an unused record, filled in but for its name and layout; NIL if all are in use."""
    for cache in range(1, MAX_CACHES):
        made = state.kmem_cache[cache]
        if made.object_size == 0:
            state.kmem_cache[0].serial += 1
            made.object_size = size
            made.stride = 0
            made.align = align
            made.slab_flags = slab_flags
            made.users = 1
            made.order = 0
            made.objects_per_slab = 0
            made.nr_slabs = 0
            made.nr_objects = 0
            made.serial = state.kmem_cache[0].serial
            return cache
    return NIL


@cold_kernel
def drop_cache(state: "State", cache: int) -> None:
    """Forget a cache that has no slabs."""
    ended = state.kmem_cache[cache]
    ended.name0 = 0
    ended.name1 = 0
    ended.name2 = 0
    ended.name3 = 0
    ended.object_size = 0
    ended.stride = 0
    ended.users = 0
    ended.serial = 0


@kernel
def _lay_out(state: "State", cache: int) -> int:
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_cache_create(state, cache)
    if allocator == Allocator.SLAB:
        return slab_cache_create(state, cache)
    return slob_cache_create(state, cache)


@entry
def kmem_cache_create(state: "State") -> int:
    """Return a cache for objects as the request says, made now or shared; NIL if there is none.

    Request.A0..A3: its name (``pack_name``); A4: size of an object, bytes; A5: alignment, 0 or a power of two;
    A6: SlabFlag bits, to which Knob.SLAB_DEBUG adds. There is none for a size outside 1..KMALLOC_MAX_SIZE, for an
    impossible alignment, where all records are in use, and without memory for what the allocator itself keeps.
    """
    name0 = state.request[Request.A0]
    name1 = state.request[Request.A1]
    name2 = state.request[Request.A2]
    name3 = state.request[Request.A3]
    size = state.request[Request.A4]
    align = state.request[Request.A5]
    slab_flags = (state.request[Request.A6] & ~SlabFlag.KMALLOC) | state.knob[Knob.SLAB_DEBUG]
    if size <= 0 or size > KMALLOC_MAX_SIZE or align < 0 or align & (align - 1) or align > KMALLOC_MAX_SIZE:
        return NIL
    cache = find_mergeable(state, size, align, slab_flags)
    if cache != NIL:
        shared = state.kmem_cache[cache]
        shared.users += 1
        shared.object_size = max(shared.object_size, size)
        return cache
    cache = take_cache(state, size, object_alignment(slab_flags, align, size), slab_flags)
    if cache == NIL:
        return NIL
    made = state.kmem_cache[cache]
    made.name0 = name0
    made.name1 = name1
    made.name2 = name2
    made.name3 = name3
    if _lay_out(state, cache) == NIL:
        drop_cache(state, cache)
        return NIL
    return cache


@entry
def kmem_cache_shrink(state: "State", cache: int) -> int:
    """Give back the cache's slabs that have no object in use; return how many frames those were."""
    if cache <= 0 or cache >= MAX_CACHES or state.kmem_cache[cache].object_size == 0:
        return 0
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_cache_shrink(state, cache)
    if allocator == Allocator.SLAB:
        return slab_cache_shrink(state, cache)
    return slob_cache_shrink(state, cache)


@entry
def kmem_cache_destroy(state: "State", cache: int) -> int:
    """One user fewer; with the last, end the cache.

    Returns 0, or the number of objects still in use, with which the cache stays; NIL if it is none.
    """
    if cache <= 0 or cache >= MAX_CACHES or state.kmem_cache[cache].object_size == 0:
        return NIL
    ended = state.kmem_cache[cache]
    if ended.users > 1:
        ended.users -= 1
        return 0
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        remaining = slub_cache_destroy(state, cache)
    elif allocator == Allocator.SLAB:
        remaining = slab_cache_destroy(state, cache)
    else:
        remaining = slob_cache_destroy(state, cache)
    if remaining == 0:
        forget_reports(state, cache)
        drop_cache(state, cache)
    return remaining


def create_cache(state: "State", name: str, size: int, align: int = 0, slab_flags: int = 0) -> int:
    """Do what ``kmem_cache_create`` does, for Python. Raises ValueError for a name that cannot be one."""
    state.request[Request.A0 : Request.A6 + 1] = (*pack_name(name), size, align, slab_flags)
    return kmem_cache_create(state)


def caches(state: "State") -> list[int]:
    """Return the numbers of all caches, the newest first, as the kernel lists them."""
    serials = state.kmem_cache["serial"][1:]
    used = [cache for cache in range(1, MAX_CACHES) if state.kmem_cache[cache].object_size]
    return sorted(used, key=lambda cache: -int(serials[cache - 1]))
