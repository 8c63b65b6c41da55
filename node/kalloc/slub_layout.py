"""How SLUB lays out a cache: what stands around an object, how large a slab is, how many slabs are kept.

    | left red zone | object | right red zone | link | track, track | padding |     <- with everything switched on
    |               ^ address handed out                                      |
    |<----------------------------- stride ---------------------------------->|

    | object: ......link...... |                                                    <- without: the link is within
    |<------- stride --------->|

A slab's order is the smallest at which little is wasted: at least ``min_objects`` objects (more with more CPUs,
since each CPU takes whole slabs), and at most a sixteenth of the block left over; then an eighth, a quarter; then
fewer objects. Above order 3 only what else would not fit.

Linux: mm/slub.c (calculate_sizes, calculate_order, calc_slab_order, set_cpu_partial, kmem_cache_open).
# Differs from Linux: CONFIG_SLAB_FREELIST_HARDENED and CONFIG_SLAB_FREELIST_RANDOM, which Debian sets, are off:
# links are plain addresses, and a new slab's objects are handed out in order.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.kalloc.cache_list import align_up
from node.kalloc.kmem_cache import MAX_BLOCK_ORDER, SLAB_DEBUG_FLAGS, WORD_BYTES, SlabFlag
from node.kalloc.slab_report import TRACK_BYTES
from node.kalloc.slub_records import MAX_OBJECTS
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import Gfp
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

SLUB_MAX_ORDER: Final = 3  # PAGE_ALLOC_COSTLY_ORDER, slub_max_order=
OBJECTS_PER_CPU_STEP: Final = 4  # min_objects: 4 for each bit of the number of CPUs, and 4 more
MOST_LEFT_OVER: Final = 16  # the first try: a sixteenth of a slab may be left over
LEAST_FRACTION: Final = 4  # the last: a quarter
MIN_PARTIAL: Final = 5
MAX_PARTIAL: Final = 10
# Objects meant for a CPU's partial list, by the size of an object from (set_cpu_partial).
CPU_PARTIAL_PAGE: Final = 6  # a page
CPU_PARTIAL_1K: Final = 24
CPU_PARTIAL_256: Final = 52
CPU_PARTIAL_SMALL: Final = 120
SIZE_1K: Final = 1024
SIZE_256: Final = 256
KMALLOC_SIZE_BYTES: Final = 4  # what STORE_USER keeps besides of a kmalloc: the size asked for


@kernel
def bits_of(value: int) -> int:
    """Return the number of the highest bit set, from 1; 0 for 0 (fls)."""
    bits = 0
    while value:
        value >>= 1
        bits += 1
    return bits


@kernel
def order_for(nr_bytes: int) -> int:
    """Return the smallest order of a block that holds ``nr_bytes``, at least 1 (get_order)."""
    return bits_of((nr_bytes - 1) >> PAGE_SHIFT)


@kernel
def order_objects(order: int, stride: int) -> int:
    """Return how many objects a block holds."""
    return (PAGE_SIZE << order) // stride


@kernel
def _order_that_wastes_little(stride: int, min_objects: int, max_order: int, fraction: int) -> int:
    if order_objects(0, stride) > MAX_OBJECTS:
        return order_for(stride * MAX_OBJECTS) - 1
    order = order_for(min_objects * stride)
    while order <= max_order:
        slab_bytes = PAGE_SIZE << order
        if slab_bytes % stride <= slab_bytes // fraction:
            break
        order += 1
    return order


@kernel
def min_objects_of(nr_cpus: int) -> int:
    """Return how many objects a slab is to have at least (slub_min_objects)."""
    return OBJECTS_PER_CPU_STEP * (bits_of(nr_cpus) + 1)


@cold_kernel
def slab_order(stride: int, nr_cpus: int) -> int:
    """Return the order of slabs of objects ``stride`` bytes apart, or NIL if none can hold one (calculate_order)."""
    min_objects = min(min_objects_of(nr_cpus), order_objects(SLUB_MAX_ORDER, stride))
    while min_objects > 1:
        fraction = MOST_LEFT_OVER
        while fraction >= LEAST_FRACTION:
            order = _order_that_wastes_little(stride, min_objects, SLUB_MAX_ORDER, fraction)
            if order <= SLUB_MAX_ORDER:
                return order
            fraction //= 2
        min_objects -= 1
    order = _order_that_wastes_little(stride, 1, SLUB_MAX_ORDER, 1)
    if order <= SLUB_MAX_ORDER:
        return order
    order = _order_that_wastes_little(stride, 1, MAX_BLOCK_ORDER, 1)
    return order if order <= MAX_BLOCK_ORDER else NIL


@kernel
def min_partial_of(stride: int) -> int:
    """Return how many slabs a node keeps on its list before it gives empty ones back: half the size's bits, 5..10."""
    return max(MIN_PARTIAL, min(MAX_PARTIAL, (bits_of(stride) - 1) // 2))


@kernel
def cpu_partial_of(stride: int) -> int:
    """Return how many objects a CPU's partial list is meant to hold."""
    if stride >= PAGE_SIZE:
        return CPU_PARTIAL_PAGE
    if stride >= SIZE_1K:
        return CPU_PARTIAL_1K
    return CPU_PARTIAL_256 if stride >= SIZE_256 else CPU_PARTIAL_SMALL


@kernel
def cpu_partial_slabs_of(cpu_partial: int, objects_per_slab: int) -> int:
    """Return how many slabs that are: they are taken to be half full (slub_set_cpu_partial)."""
    return -(-2 * cpu_partial // objects_per_slab)


@kernel
def _lay_out_object(state: "State", cache: int) -> int:
    """Set where everything stands around an object; return its stride (calculate_sizes)."""
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    slab_flags = record.slab_flags
    size = align_up(record.object_size, WORD_BYTES)
    if slab_flags & SlabFlag.RED_ZONE and size == record.object_size:
        size += WORD_BYTES
    slub.inuse_bytes = size
    if slab_flags & SlabFlag.POISON or (slab_flags & SlabFlag.RED_ZONE and record.object_size < WORD_BYTES):
        slub.link_offset = size
        size += WORD_BYTES
    else:
        slub.link_offset = (record.object_size // 2) & -WORD_BYTES
    slub.track_offset = 0
    if slab_flags & SlabFlag.STORE_USER:
        slub.track_offset = size
        size += 2 * TRACK_BYTES
        if slab_flags & SlabFlag.KMALLOC:
            size += KMALLOC_SIZE_BYTES
    slub.red_left = 0
    if slab_flags & SlabFlag.RED_ZONE:
        slub.red_left = align_up(WORD_BYTES, record.align)
        size += WORD_BYTES + slub.red_left
    return align_up(size, record.align)


@cold_kernel
def lay_out_cache(state: "State", cache: int) -> int:
    """Set what SLUB keeps of a cache whose object size, alignment and flags are set; return 0, or NIL: too large."""
    record = state.kmem_cache[cache]
    slub = state.slub_cache[cache]
    stride = _lay_out_object(state, cache)
    order = slab_order(stride, state.knob[Knob.NR_CPUS])
    if order == NIL:
        return NIL
    record.stride = stride
    record.order = order
    record.objects_per_slab = order_objects(order, stride)
    slub.min_order = order_for(stride)
    slub.min_objects = order_objects(slub.min_order, stride)
    slub.min_partial = min_partial_of(stride)
    slub.is_debug = 1 if record.slab_flags & SLAB_DEBUG_FLAGS else 0
    slub.cpu_partial = 0 if slub.is_debug else cpu_partial_of(stride)
    slub.cpu_partial_slabs = cpu_partial_slabs_of(slub.cpu_partial, record.objects_per_slab)
    gfp = 0
    if order:
        gfp |= Gfp.COMP
    if record.slab_flags & SlabFlag.CACHE_DMA:
        gfp |= Gfp.DMA
    if record.slab_flags & SlabFlag.CACHE_DMA32:
        gfp |= Gfp.DMA32
    if record.slab_flags & SlabFlag.RECLAIM_ACCOUNT:
        gfp |= Gfp.RECLAIMABLE
    slub.gfp = gfp
    return 0
