"""SLOB: a simple list of blocks, for machines with little memory.

    size of the object    < 256        < 1024        < 4 KiB        larger
                            |             |             |              |
    pages with room       small        medium         large       frames of its own, without a list
                          page <-> page <-> page
                            ^ the search goes on where the last one ended: the list is turned round

Objects of all caches lie together in pages, packed to two bytes; there is nothing per CPU and nothing per cache. An
object from a cache has no header, since its cache says its size. kmalloc has nobody to ask, so it puts the size
in front, in as many bytes as the alignment takes. Little memory is lost, and every call walks lists.

Knob.SLOB_POLICY: one list with first-fit is SLOB as it began; three lists keep small objects from cutting up the pages
of large ones; best-fit leaves large blocks whole. A page that was full joins the list of the object that made room
in it. Lists are in node/kalloc/slob_lists.py; how a page is cut up is in node/kalloc/slob_page.py.

What is wrong with a call is found where memory says so: a free block freed again, a frame that is none of SLOB's, a
size in front of the object that cannot be. An address within an object may look like a right one.

Linux 6.1: mm/slob.c (slob_alloc, slob_free, __do_kmalloc_node, kfree).
# Differs from Linux: frees that Linux would believe, and be broken by, are refused and reported; a cache says how many
of its objects are in use when it is destroyed; there is one lock less to take, since one CPU runs at a time; SLOB looks
at no NUMA node (its callers ask for none).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob, VmStat
from node.joints import alloc_frames, free_frames
from node.kalloc.kmem_cache import KMALLOC_MAX_SIZE, MAX_CACHES, WORD_SHIFT, SlabError
from node.kalloc.slab_report import report
from node.kalloc.slob_lists import slob_alloc, slob_free
from node.kalloc.slob_page import UNIT_BYTES, UNIT_SHIFT, UNITS_PER_PAGE, SlobStat, overlaps_free
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import Gfp
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

KMALLOC_ALIGN: Final = 8  # bytes: ARCH_KMALLOC_MINALIGN of x86, __alignof__(unsigned long long)
_SIZE_MASK: Final = (1 << 32) - 1  # the size in front of an object is an unsigned int
_KMALLOC_SMALL: Final = PAGE_SIZE - KMALLOC_ALIGN  # bytes from which on kmalloc takes frames


# --- frames ---------------------------------------------------------------------------------------------


@kernel
def _order_of(size: int) -> int:
    """Return the order of the smallest block of frames that holds ``size`` bytes (get_order)."""
    order = 0
    while PAGE_SIZE << order < size:
        order += 1
    return order


@kernel
def _large_alloc(state: "State", size: int, gfp: int) -> int:
    """Return the address of a block of frames for ``size`` bytes, which its first frame remembers; or NIL."""
    order = _order_of(size)
    pfn = alloc_frames(state, order, (gfp & ~Gfp.ZERO) | Gfp.COMP if order else gfp & ~Gfp.ZERO)
    if pfn == NIL:
        state.slob_stat[SlobStat.NO_MEMORY] += 1
        return NIL
    page = state.page[pfn]
    page.page_flags |= PageFlag.KERNEL | PageFlag.COMPOUND
    page.order = order
    page.private = size
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] += 1 << order
    state.slob_stat[SlobStat.LARGE_ALLOCS] += 1
    state.slob_stat[SlobStat.BYTES_ASKED] += size
    state.slob_stat[SlobStat.BYTES_USED] += PAGE_SIZE << order
    return pfn << PAGE_SHIFT


@kernel
def _is_large(state: "State", paddr: int) -> int:
    """Return whether an address is that of a block of frames of SLOB's."""
    pfn = paddr >> PAGE_SHIFT
    if paddr & PAGE_OFFSET_MASK or pfn < 0 or pfn >= state.knob[Knob.NR_FRAMES]:
        return 0
    page = state.page[pfn]
    wanted = PageFlag.KERNEL | PageFlag.COMPOUND
    return 1 if page.page_flags & wanted == wanted and page.private > 0 else 0


@kernel
def _large_free(state: "State", pfn: int) -> None:
    page = state.page[pfn]
    order = page.order
    state.slob_stat[SlobStat.LARGE_FREES] += 1
    state.slob_stat[SlobStat.BYTES_ASKED] -= page.private
    state.slob_stat[SlobStat.BYTES_USED] -= PAGE_SIZE << order
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] -= 1 << order
    page.private = 0
    page.page_flags &= ~(PageFlag.KERNEL | PageFlag.COMPOUND)
    free_frames(state, pfn, order)


# --- what can be known to be wrong ----------------------------------------------------------------------


@kernel
def _is_slobs(state: "State", paddr: int) -> int:
    pfn = paddr >> PAGE_SHIFT
    if pfn < 0 or pfn >= state.knob[Knob.NR_FRAMES]:
        return 0
    return 1 if state.page[pfn].page_flags & PageFlag.SLAB else 0


@kernel
def _error_of(state: "State", paddr: int, size: int) -> int:
    """Return what is wrong with freeing ``size`` bytes, or 0 if nothing shows (SlabError)."""
    if not _is_slobs(state, paddr):
        return SlabError.FOREIGN_ADDRESS
    units = (size + UNIT_BYTES - 1) >> UNIT_SHIFT
    unit = (paddr & PAGE_OFFSET_MASK) >> UNIT_SHIFT
    if paddr & (UNIT_BYTES - 1) or unit + units > UNITS_PER_PAGE:
        return SlabError.NOT_OBJECT_START
    return SlabError.DOUBLE_FREE if overlaps_free(state, paddr >> PAGE_SHIFT, unit, units) else 0


@kernel
def _refuse(state: "State", error: int, cache: int, paddr: int) -> int:
    state.slob_stat[SlobStat.ERRORS] += 1
    return report(state, error, cache, paddr, NIL)


@kernel
def _size_in_front(state: "State", paddr: int) -> int:
    """Return the size that kmalloc put before an object in one of SLOB's pages."""
    return state.slab_word[(paddr - KMALLOC_ALIGN) >> WORD_SHIFT] & _SIZE_MASK


@kernel
def _kmalloc_error(state: "State", paddr: int) -> int:
    """Return what is wrong with an address that kmalloc is said to have given, small; 0 if nothing shows."""
    if not _is_slobs(state, paddr):
        return SlabError.FOREIGN_ADDRESS
    if paddr & (KMALLOC_ALIGN - 1) or paddr & PAGE_OFFSET_MASK < KMALLOC_ALIGN:
        return SlabError.NOT_OBJECT_START
    header = paddr - KMALLOC_ALIGN
    error = _error_of(state, header, KMALLOC_ALIGN)
    if error:
        return error
    size = _size_in_front(state, paddr)
    if size == 0 or size >= _KMALLOC_SMALL:
        return SlabError.NOT_OBJECT_START
    return _error_of(state, header, size + KMALLOC_ALIGN)


# --- the calls ------------------------------------------------------------------------------------------


@entry
def slob_kmalloc(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes, or NIL; a power of two is aligned to itself."""
    if size <= 0 or size > KMALLOC_MAX_SIZE:
        return NIL
    if size >= _KMALLOC_SMALL:
        return _large_alloc(state, size, gfp)
    align = KMALLOC_ALIGN if size & (size - 1) else max(size, KMALLOC_ALIGN)
    header = slob_alloc(state, size + KMALLOC_ALIGN, gfp, align, KMALLOC_ALIGN)
    if header == NIL:
        return NIL
    state.slob_stat[SlobStat.BYTES_ASKED] += size
    state.slab_word[header >> WORD_SHIFT] = size
    return header + KMALLOC_ALIGN


@entry
def slob_kfree(state: "State", paddr: int) -> int:
    """Take back what ``slob_kmalloc`` gave; return 0, or a SlabError."""
    if _is_large(state, paddr):
        _large_free(state, paddr >> PAGE_SHIFT)
        return 0
    error = _kmalloc_error(state, paddr)
    if error:
        return _refuse(state, error, NIL, paddr)
    size = _size_in_front(state, paddr)
    state.slob_stat[SlobStat.BYTES_ASKED] -= size
    slob_free(state, paddr - KMALLOC_ALIGN, size + KMALLOC_ALIGN)
    return 0


@entry
def slob_ksize(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr``, which kmalloc gave, may use; 0 for any other address."""
    if _is_large(state, paddr):
        return PAGE_SIZE << state.page[paddr >> PAGE_SHIFT].order
    if _kmalloc_error(state, paddr):
        return 0
    return -(-_size_in_front(state, paddr) // UNIT_BYTES) * UNIT_BYTES


@entry
def slob_cache_create(state: "State", cache: int) -> int:
    """Set how much an object of a new cache takes: its size, rounded up to units; return 0.

    NIL for an alignment that no page gives.
    """
    record = state.kmem_cache[cache]
    if record.align > PAGE_SIZE:
        return NIL
    record.stride = -(-record.object_size // UNIT_BYTES) * UNIT_BYTES
    record.order = _order_of(record.stride)
    return 0


@entry
def slob_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    record = state.kmem_cache[cache]
    if record.stride < PAGE_SIZE:
        paddr = slob_alloc(state, record.stride, gfp, record.align, 0)
        if paddr != NIL:
            state.slob_stat[SlobStat.BYTES_ASKED] += record.object_size
    else:
        paddr = _large_alloc(state, record.object_size, gfp)
    if paddr != NIL:
        record.nr_objects += 1
    return paddr


@kernel
def _is_cache(state: "State", cache: int) -> int:
    return 1 if 0 < cache < MAX_CACHES and state.kmem_cache[cache].object_size else 0


@entry
def slob_cache_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a SlabError."""
    if not _is_cache(state, cache):
        return _refuse(state, SlabError.WRONG_CACHE, NIL, paddr)
    record = state.kmem_cache[cache]
    if record.nr_objects == 0:
        return _refuse(state, SlabError.WRONG_CACHE, cache, paddr)
    if record.stride >= PAGE_SIZE:
        if not _is_large(state, paddr):
            return _refuse(state, SlabError.FOREIGN_ADDRESS, cache, paddr)
        if state.page[paddr >> PAGE_SHIFT].private != record.object_size:
            return _refuse(state, SlabError.WRONG_CACHE, cache, paddr)
        _large_free(state, paddr >> PAGE_SHIFT)
    else:
        error = _error_of(state, paddr, record.stride)
        if not error and paddr & (record.align - 1):
            error = SlabError.NOT_OBJECT_START
        if error:
            return _refuse(state, error, cache, paddr)
        state.slob_stat[SlobStat.BYTES_ASKED] -= record.object_size
        slob_free(state, paddr, record.stride)
    record.nr_objects -= 1
    return 0


@entry
def slob_cache_shrink(state: "State", _cache: int) -> int:
    """Return 0: a page without an object in use is given back at once."""
    return 0


@entry
def slob_cache_destroy(state: "State", cache: int) -> int:
    """Return 0 if the cache may end, or how many of its objects are in use."""
    return state.kmem_cache[cache].nr_objects
