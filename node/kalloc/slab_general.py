"""SLAB: the general caches behind kmalloc, and requests that are too large for them.

    size-32  size-64  size-128  ...  size-65536  size-131072        and the same with (DMA)

Thirteen sizes, each in normal memory and in frames that old devices reach: 26 caches. A request gets an object of
the smallest size that holds it. They are made when the machine boots; the free lists of slabs that keep theirs
elsewhere are objects of them too.

What is larger than 128 KiB is refused in the lectures' kernel. 6.1 gives it whole frames, and counts them as slabs.

Linux 2.6: include/linux/kmalloc_sizes.h, mm/slab.c (cache_names, kmem_find_general_cachep); Linux 6.1:
mm/slab_common.c (kmalloc_slab, __kmalloc_large_node, free_large_kmalloc).
# Differs from Linux: 6.1 calls them kmalloc-32 to kmalloc-8k and dma-kmalloc-..., has also 96, 192 and a set for
# reclaimable objects, and gives frames from 8 KiB on.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Era, Knob, VmStat
from node.joints import alloc_frames, free_frames
from node.kalloc.cache_list import create_cache
from node.kalloc.kmem_cache import KMALLOC_MAX_SIZE, SlabFlag
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import Gfp
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

SMALLEST: Final = 32  # bytes
NR_SIZES: Final = 13
LARGEST: Final = SMALLEST << (NR_SIZES - 1)
NR_GENERAL: Final = 2 * NR_SIZES  # places in state.slab_general: [is DMA * NR_SIZES + size]
_LARGE_FLAGS: Final = PageFlag.KERNEL | PageFlag.COMPOUND


class SlabStat(IntEnum):
    """Places in ``state.slab_stat``: requests of kmalloc that no general cache serves."""

    LARGE_ALLOCS = 0
    LARGE_FREES = 1
    LARGE_FRAMES = 2  # level: frames that such requests hold
    TOO_LARGE = 3  # refused
    NO_MEMORY = 4
    NR = 5


def setup_general_caches(state: "State") -> None:
    """Make the general caches of a machine that boots."""
    for dma in range(2):
        for size in range(NR_SIZES):
            flags = SlabFlag.KMALLOC | SlabFlag.HWCACHE_ALIGN | (SlabFlag.CACHE_DMA if dma else 0)
            name = f"size-{SMALLEST << size}{'(DMA)' if dma else ''}"
            state.slab_general[dma * NR_SIZES + size] = create_cache(
                state, name, SMALLEST << size, slab_flags=flags
            )


@kernel
def general_cache(state: "State", size: int, gfp: int) -> int:
    """Return the cache for objects of ``size`` bytes, 1..LARGEST (kmem_find_general_cachep)."""
    index = 0
    while SMALLEST << index < size:
        index += 1
    return state.slab_general[index + (NR_SIZES if gfp & Gfp.DMA else 0)]


@kernel
def _order_for(size: int) -> int:
    order = 0
    while PAGE_SIZE << order < size:
        order += 1
    return order


@cold_kernel
def large_alloc(state: "State", size: int, gfp: int) -> int:
    """Return the address of frames for more than LARGEST bytes; NIL without memory, or if that is too much."""
    if state.knob[Knob.ERA] == Era.LECTURE or size > KMALLOC_MAX_SIZE:
        state.slab_stat[SlabStat.TOO_LARGE] += 1
        return NIL
    order = _order_for(size)
    pfn = alloc_frames(state, order, (gfp & ~Gfp.ZERO) | Gfp.COMP)
    if pfn == NIL:
        state.slab_stat[SlabStat.NO_MEMORY] += 1
        return NIL
    page = state.page[pfn]
    page.page_flags |= _LARGE_FLAGS
    page.order = order
    page.private = size
    state.slab_stat[SlabStat.LARGE_ALLOCS] += 1
    state.slab_stat[SlabStat.LARGE_FRAMES] += 1 << order
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] += 1 << order
    return pfn << PAGE_SHIFT


@kernel
def is_large(state: "State", paddr: int) -> int:
    """Return whether ``large_alloc`` gave this address, any address."""
    pfn = paddr >> PAGE_SHIFT
    if paddr & PAGE_OFFSET_MASK or pfn < 0 or pfn >= len(state.page):
        return 0
    page = state.page[pfn]
    return 1 if page.page_flags & _LARGE_FLAGS == _LARGE_FLAGS and page.private > LARGEST else 0


@cold_kernel
def large_free(state: "State", paddr: int) -> None:
    """Take back what ``large_alloc`` gave."""
    pfn = paddr >> PAGE_SHIFT
    page = state.page[pfn]
    order = page.order
    page.private = 0
    page.page_flags &= ~_LARGE_FLAGS
    state.slab_stat[SlabStat.LARGE_FREES] += 1
    state.slab_stat[SlabStat.LARGE_FRAMES] -= 1 << order
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] -= 1 << order
    free_frames(state, pfn, order)


@kernel
def large_size(state: "State", paddr: int) -> int:
    """Return how many bytes ``large_alloc`` gave for an address of its."""
    return PAGE_SIZE << state.page[paddr >> PAGE_SHIFT].order
