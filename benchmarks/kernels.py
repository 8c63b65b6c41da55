"""What the benchmarks run: batches of one operation, as entries. benchmarks/c/twins.c has the same in C."""

from typing import TYPE_CHECKING, Final

from node.counters import Current
from node.fault.access import touch
from node.kalloc.kmem_cache import WORD_BYTES, WORD_SHIFT
from node.kalloc.slub_fast import slub_alloc, slub_free
from node.kalloc.slub_kmalloc import kfree_of_slub, kmalloc_of_slub
from node.phys.buddy import buddy_free, count_free
from node.phys.fallback import rmqueue
from node.phys.migrate_type import MigrateType
from node.phys.page_alloc import alloc_pages, free_pages
from node.phys.zone import ZoneId
from node.vm.unmap import unmap_area
from node.vm.vma import find_vma
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from shared.jit import entry
from shared.rng import below, splitmix64_word

if TYPE_CHECKING:
    from node.state import State

# What slub_mixed draws, and where in the word that it is drawn from.
NR_CPUS: Final = 4
NR_SIZES: Final = 8
CPU_BITS_AT: Final = 20
SIZE_BITS_AT: Final = 40


@entry
def touch_in_order(state: "State", mm: int, vaddr: int, nr_pages: int, count: int) -> int:
    """Read ``count`` pages, in order of ``nr_pages``, again and again; return the sum of their frames."""
    page = 0
    total = 0
    for _ in range(count):
        total += touch(state, mm, vaddr + (page << PAGE_SHIFT), 0)
        page += 1
        if page == nr_pages:
            page = 0
    return total


@entry
def touch_at_random(state: "State", mm: int, vaddr: int, nr_pages: int, count: int) -> int:
    """Read ``count`` pages, each drawn from ``nr_pages``; return the sum of their frames."""
    total = 0
    for i in range(count):
        page = below(splitmix64_word(0, i), nr_pages)
        total += touch(state, mm, vaddr + (page << PAGE_SHIFT), 0)
    return total


@entry
def find_areas_at_random(state: "State", mm: int, vaddr: int, nr_pages: int, count: int) -> int:
    """Look up the areas of ``count`` addresses, each drawn from ``nr_pages``; return the sum of their numbers."""
    total = 0
    for i in range(count):
        page = below(splitmix64_word(0, i), nr_pages)
        total += find_vma(state, mm, vaddr + (page << PAGE_SHIFT))
    return total


@entry
def first_touch(state: "State", mm: int, vaddr: int, nr_pages: int) -> int:
    """Write each of ``nr_pages`` once; return how many could be."""
    for page in range(nr_pages):
        if touch(state, mm, vaddr + (page << PAGE_SHIFT), 1) == NIL:
            return page
    return nr_pages


@entry
def unmap_whole_area(state: "State", mm: int, vaddr: int) -> int:
    """Unmap the area at ``vaddr``; return how many pages it had."""
    return unmap_area(state, find_vma(state, mm, vaddr))


@entry
def frame_pairs(state: "State", count: int) -> int:
    """Allocate a frame and free it, ``count`` times; return the sum of their numbers."""
    total = 0
    for _ in range(count):
        pfn = alloc_pages(state, 0, GFP_HIGHUSER_MOVABLE)
        total += pfn
        free_pages(state, pfn, 0)
    return total


@entry
def zone_pairs(state: "State", zone: int, count: int) -> int:
    """Take a frame from a zone's buddy system and give it back, ``count`` times; return the sum of their numbers."""
    total = 0
    for _ in range(count):
        pfn = rmqueue(state, zone, 0, MigrateType.MOVABLE)
        count_free(state, zone, -1)
        total += pfn
        buddy_free(state, pfn, 0, 0)
    return total


@entry
def frames_mixed(state: "State", nr_live: int, count: int) -> int:
    """Hold ``nr_live`` frames of zone DMA32, a power of two, replace one drawn ``count`` times, and free them all.

    Returns the sum of their numbers. They are kept in the words of slabs, which there are none of.
    """
    total = 0
    for i in range(nr_live):
        state.slab_word[i] = rmqueue(state, ZoneId.DMA32, 0, MigrateType.MOVABLE)
        count_free(state, ZoneId.DMA32, -1)
    for i in range(count):
        index = splitmix64_word(0, i) & (nr_live - 1)
        buddy_free(state, state.slab_word[index], 0, 0)
        pfn = rmqueue(state, ZoneId.DMA32, 0, MigrateType.MOVABLE)
        count_free(state, ZoneId.DMA32, -1)
        state.slab_word[index] = pfn
        total += pfn
    for i in range(nr_live):
        buddy_free(state, state.slab_word[i], 0, 0)
        state.slab_word[i] = 0
    return total


@entry
def slub_pairs(state: "State", cache: int, count: int) -> int:
    """Allocate an object of a cache and free it, ``count`` times; return the sum of the addresses."""
    total = 0
    for _ in range(count):
        paddr = slub_alloc(state, cache, GFP_KERNEL)
        total += paddr
        slub_free(state, cache, paddr)
    return total


@entry
def slub_mixed(state: "State", live: int, nr_live: int, count: int) -> int:
    """Replace one of ``nr_live`` objects, a power of two, by one of another size, ``count`` times; free them all.

    CPUs, objects and sizes of 8 to 1024 bytes are drawn. ``live`` is the address of an array of addresses, 0 at
    first and at the end. Returns the sum of all addresses.
    """
    total = 0
    array = live >> WORD_SHIFT
    for i in range(count):
        word = splitmix64_word(0, i)
        state.current[Current.CPU] = (word >> CPU_BITS_AT) & (NR_CPUS - 1)
        index = array + (word & (nr_live - 1))
        if state.slab_word[index]:
            kfree_of_slub(state, state.slab_word[index])
        paddr = kmalloc_of_slub(state, WORD_BYTES << ((word >> SIZE_BITS_AT) & (NR_SIZES - 1)), GFP_KERNEL)
        state.slab_word[index] = paddr
        total += paddr
    state.current[Current.CPU] = 0
    for index in range(array, array + nr_live):
        if state.slab_word[index]:
            kfree_of_slub(state, state.slab_word[index])
            state.slab_word[index] = 0
    return total
