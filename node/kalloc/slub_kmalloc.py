"""SLUB's kmalloc: a cache for each size class, in three rows; frames for what is larger.

    bytes    8  16  32  64  96  128  192  256  512  1k  2k  4k  8k  | more: 2**order frames, up to 4 MiB
    index    3   4   5   6   1    7    2    8    9  10  11  12  13

    row      NORMAL   kmalloc-64          RECLAIM   kmalloc-rcl-64          DMA   dma-kmalloc-64

Linux looks sizes up to 192 up in a table of eights, and takes the highest bit of larger ones; here the table goes
on to 8192, and holds the cache itself. The caches are made together, when the first of them is asked for. An
address says what it is: its frame is a slab's, whose descriptor has the cache, or the first of a block of frames.

Linux: mm/slab_common.c (kmalloc_slab, create_kmalloc_caches, kfree, __ksize), include/linux/slab.h (kmalloc_type).
# Differs from Linux: made at the first kmalloc, not at boot; kmalloc-cg-* do not exist, since there is no kernel
# memory accounting.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob, VmStat
from node.joints import alloc_frames, free_frames
from node.kalloc.cache_list import object_alignment, take_cache
from node.kalloc.kmem_cache import KMALLOC_MAX_SIZE, NO_OBJECT, WORD_BYTES, SlabError, SlabFlag
from node.kalloc.slab_report import report
from node.kalloc.slub_cache import open_cache
from node.kalloc.slub_fast import slub_alloc, slub_free
from node.kalloc.slub_layout import order_for
from node.kalloc.slub_records import (
    KMALLOC_SHIFT_HIGH,
    KMALLOC_SLOT_SHIFT,
    NR_KMALLOC_SLOTS,
    KmallocType,
    LargeStat,
)
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import Gfp
from shared.jit import cold_kernel, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

KMALLOC_SHIFT_LOW: Final = 3
KMALLOC_MAX_CACHE_SIZE: Final = 1 << KMALLOC_SHIFT_HIGH  # bytes
INDEX_96: Final = 1
INDEX_192: Final = 2
SIZE_64: Final = 64
SIZE_96: Final = 96
SIZE_128: Final = 128
SIZE_192: Final = 192
KILO_SHIFT: Final = 10  # names say 1k, 2k, 4k, 8k
DECIMAL: Final = 10
HALF_WORD_BITS: Final = 32
BYTE_BITS: Final = 8
ZERO_DIGIT: Final = ord("0")
LETTER_K: Final = ord("k")
# Words of names: "kmalloc-" and a size, "kmalloc-", "rcl-" and a size, "dma-kmal", "loc-" and a size.
NAME_KMALLOC: Final = int.from_bytes(b"kmalloc-", "little")
NAME_RCL: Final = int.from_bytes(b"rcl-", "little")
NAME_DMA: Final = int.from_bytes(b"dma-kmal", "little")
NAME_LOC: Final = int.from_bytes(b"loc-", "little")


@kernel
def next_class_below(index: int) -> int:
    """Return the bytes of the largest class that is smaller than a class; 0 for the smallest."""
    size = kmalloc_size(index)
    if size == 1 << KMALLOC_SHIFT_LOW:
        return 0
    if index in (INDEX_96, INDEX_192):
        return size - size // 3
    between = size // 2 + size // 4
    return between if between in (SIZE_96, SIZE_192) else size // 2


@kernel
def kmalloc_size(index: int) -> int:
    """Return the bytes of a class."""
    if index == INDEX_96:
        return SIZE_96
    return SIZE_192 if index == INDEX_192 else 1 << index


@hot_kernel
def kmalloc_type(gfp: int) -> int:
    """Return the row of caches that serves a request."""
    if gfp & Gfp.DMA:
        return KmallocType.DMA
    return KmallocType.RECLAIM if gfp & Gfp.RECLAIMABLE else KmallocType.NORMAL


@hot_kernel
def kmalloc_slot(size: int, gfp: int) -> int:
    """Return the place in ``state.kmalloc_cache`` of the cache that serves 1..8192 bytes."""
    return kmalloc_type(gfp) * NR_KMALLOC_SLOTS + ((size - 1) >> KMALLOC_SLOT_SHIFT)


@kernel
def _size_word(size: int) -> int:
    """Return a size as the bytes of a name: 96, 1k."""
    kilo = size >> KILO_SHIFT
    word = LETTER_K if kilo else 0
    number = kilo if kilo else size
    while number:
        word = (word << BYTE_BITS) | (ZERO_DIGIT + number % DECIMAL)
        number //= DECIMAL
    return word


@kernel
def _make_one(state: "State", row: int, index: int) -> None:
    size = kmalloc_size(index)
    slab_flags = SlabFlag.KMALLOC | state.knob[Knob.SLAB_DEBUG]
    if row == KmallocType.RECLAIM:
        slab_flags |= SlabFlag.RECLAIM_ACCOUNT
    elif row == KmallocType.DMA:
        slab_flags |= SlabFlag.CACHE_DMA
    align = size if size & (size - 1) == 0 else WORD_BYTES
    cache = take_cache(state, size, object_alignment(slab_flags, align, size), slab_flags)
    if cache == NIL:
        return
    made = state.kmem_cache[cache]
    digits = _size_word(size)
    made.name0 = NAME_KMALLOC
    made.name1 = digits
    if row == KmallocType.RECLAIM:
        made.name1 = NAME_RCL | (digits << HALF_WORD_BITS)
    elif row == KmallocType.DMA:
        made.name0 = NAME_DMA
        made.name1 = NAME_LOC | (digits << HALF_WORD_BITS)
    open_cache(state, cache)
    first = row * NR_KMALLOC_SLOTS
    below = next_class_below(index)
    for slot in range(first + (below >> KMALLOC_SLOT_SHIFT), first + (size >> KMALLOC_SLOT_SHIFT)):
        state.kmalloc_cache[slot] = cache


@cold_kernel
def make_kmalloc_caches(state: "State") -> None:
    """Make the caches of all classes and rows, if they are not made yet (create_kmalloc_caches)."""
    if state.kmalloc_cache[0]:
        return
    for row in range(KmallocType.NR):
        for index in range(KMALLOC_SHIFT_LOW, KMALLOC_SHIFT_HIGH + 1):
            _make_one(state, row, index)
            if kmalloc_size(index) == SIZE_64:
                _make_one(state, row, INDEX_96)
            elif kmalloc_size(index) == SIZE_128:
                _make_one(state, row, INDEX_192)


@cold_kernel
def _kmalloc_at_first(state: "State", size: int, gfp: int) -> int:
    make_kmalloc_caches(state)
    cache = state.kmalloc_cache[kmalloc_slot(size, gfp)]
    return NIL if cache == 0 else slub_alloc(state, cache, gfp)


@cold_kernel
def _kmalloc_large(state: "State", size: int, gfp: int) -> int:
    """Return the address of a block of frames for ``size`` bytes, or NIL."""
    if size <= 0 or size > KMALLOC_MAX_SIZE:
        state.kmalloc_large[LargeStat.FAILED] += 1
        return NIL
    order = order_for(size)
    pfn = alloc_frames(state, order, gfp | Gfp.COMP)
    if pfn == NIL:
        state.kmalloc_large[LargeStat.FAILED] += 1
        return NIL
    page = state.page[pfn]
    page.page_flags |= PageFlag.COMPOUND | PageFlag.KERNEL
    page.order = order
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] += 1 << order
    state.kmalloc_large[LargeStat.ALLOCATED] += 1
    state.kmalloc_large[LargeStat.FRAMES] += 1 << order
    return pfn << PAGE_SHIFT


@kernel
def _large_block(state: "State", paddr: int) -> int:
    """Return the first frame of the block that kmalloc gave at ``paddr``, or NIL if that is none."""
    pfn = paddr >> PAGE_SHIFT
    if paddr & PAGE_OFFSET_MASK or pfn < 0 or pfn >= len(state.page):
        return NIL
    large = PageFlag.COMPOUND | PageFlag.KERNEL
    return pfn if state.page[pfn].page_flags & large == large else NIL


@cold_kernel
def _kfree_large(state: "State", paddr: int) -> int:
    if paddr == NO_OBJECT:
        return 0
    pfn = _large_block(state, paddr)
    if pfn == NIL:
        return report(state, SlabError.FOREIGN_ADDRESS, NIL, paddr, NIL)
    page = state.page[pfn]
    order = page.order
    page.page_flags &= ~(PageFlag.COMPOUND | PageFlag.KERNEL)
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] -= 1 << order
    state.kmalloc_large[LargeStat.FREED] += 1
    state.kmalloc_large[LargeStat.FRAMES] -= 1 << order
    free_frames(state, pfn, order)
    return 0


@hot_kernel
def kmalloc_of_slub(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes, or NIL if there is no memory or no such size."""
    if size <= 0 or size > KMALLOC_MAX_CACHE_SIZE:
        return _kmalloc_large(state, size, gfp)
    cache = state.kmalloc_cache[kmalloc_slot(size, gfp)]
    if cache == 0:
        return _kmalloc_at_first(state, size, gfp)
    return slub_alloc(state, cache, gfp)


@hot_kernel
def kfree_of_slub(state: "State", paddr: int) -> int:
    """Take back what kmalloc gave; return 0, or a ``SlabError``. A null pointer is nothing to take back."""
    pfn = paddr >> PAGE_SHIFT
    if pfn < 0 or pfn >= len(state.page) or not state.page[pfn].page_flags & PageFlag.SLAB:
        return _kfree_large(state, paddr)
    return slub_free(state, state.page[state.page[pfn].word].mapping, paddr)


@kernel
def ksize_of_slub(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr`` may use, 0 if that is nothing of kmalloc's (__ksize)."""
    pfn = paddr >> PAGE_SHIFT
    if pfn < 0 or pfn >= len(state.page):
        return 0
    if state.page[pfn].page_flags & PageFlag.SLAB:
        return state.kmem_cache[state.page[state.page[pfn].word].mapping].object_size
    pfn = _large_block(state, paddr)
    return 0 if pfn == NIL else PAGE_SIZE << state.page[pfn].order
