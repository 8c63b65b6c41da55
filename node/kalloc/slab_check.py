"""What must hold of SLAB's caches at any time: each object is in one place, and every count is what it counts.

    an object is   free in its slab   or   in one array   or   its user's

Written apart from the kernels, over whole slabs. It takes for granted that free frames are as they should be
(node/phys/frames_check.py).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob, VmStat
from node.findings import differ, each, linked_list
from node.kalloc.kmem_cache import MAX_CACHES, WORD_BYTES, WORD_SHIFT, Allocator, SlabFlag, cache_name
from node.kalloc.slab_general import LARGEST, SlabStat
from node.kalloc.slab_layout import Placement
from node.kalloc.slab_lists import NR_SLAB_LISTS, SlabList
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

_LARGE = PageFlag.KERNEL | PageFlag.COMPOUND


@dataclass
class _Found:
    """What was counted while the caches were looked through."""

    wrong: list[str] = field(default_factory=list)
    frames: dict[int, int] = field(default_factory=dict)  # of slabs: the cache of each
    free_lists: dict[int, str] = field(default_factory=dict)  # kept off their slabs: whose each address is
    out: set[int] = field(default_factory=set)  # addresses of all objects that are out of their slabs
    in_arrays: set[int] = field(default_factory=set)


def check_slab(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with SLAB's caches; none under another allocator."""
    if state.knob[Knob.ALLOCATOR] != Allocator.SLAB:
        return []
    found = _Found()
    following = state.page["next"].tolist()
    previous = state.page["prev"].tolist()
    for cache in range(1, MAX_CACHES):
        if state.kmem_cache[cache].object_size:
            _check_cache(state, cache, (following, previous), found)
    if found.wrong:
        return found.wrong
    return _check_frames(state, found) + _check_off_slab(found)


def _check_cache(state: "State", cache: int, links: tuple[list[int], list[int]], found: _Found) -> None:
    name = f"cache {cache_name(state, cache)}"
    record = state.kmem_cache[cache]
    nr_slabs = 0
    active = 0
    before = len(found.out)
    for nid in range(state.knob[Knob.NR_NODES]):
        node = state.slab_node[cache * state.knob[Knob.NR_NODES] + nid]
        slabs = _check_lists(state, cache, nid, links, found)
        outside = sum(_check_slab(state, cache, slab, found) for slab in slabs)
        where = f"{name} node {nid}"
        found.wrong += differ(f"{where}.total_slabs", node.total_slabs, len(slabs), "slabs on its lists")
        free = len(slabs) * record.objects_per_slab - outside
        found.wrong += differ(f"{where}.free_objects", node.free_objects, free, "objects free in its slabs")
        nr_slabs += len(slabs)
        active += outside
    found.wrong += differ(f"{name}.nr_slabs", record.nr_slabs, nr_slabs, "slabs on its lists")
    found.wrong += differ(
        f"{name}.num_active", state.slab_cache[cache].num_active, active, "objects out of its slabs"
    )
    if active != len(found.out) - before:
        found.wrong.append(f"{name}: {active} objects are out, of which some have one address")
    in_arrays = _check_arrays(state, cache, name, found)
    found.wrong += differ(
        f"{name}.nr_objects", record.nr_objects, active - in_arrays, "objects out that are in no array"
    )


def _check_lists(
    state: "State", cache: int, nid: int, links: tuple[list[int], list[int]], found: _Found
) -> list[int]:
    """Return the slabs of a node, after what their lists say was compared with them."""
    slabs: list[int] = []
    full = state.kmem_cache[cache].objects_per_slab
    for which in SlabList:
        chain = state.slab_list[(cache * state.knob[Knob.NR_NODES] + nid) * NR_SLAB_LISTS + which]
        name = f"cache {cache_name(state, cache)} node {nid} {which.name}"
        members, broken = linked_list(name, (chain.first, chain.last), *links)
        found.wrong += broken + differ(f"{name}.nr_slabs", chain.nr_slabs, len(members), "slabs on it")
        for slab in members if not broken else []:
            page = state.page[slab]
            wanted = {0: SlabList.FREE, full: SlabList.FULL}.get(page.word, SlabList.PARTIAL)
            if page.mapping != cache or not page.page_flags & PageFlag.SLAB:
                found.wrong.append(f"{name}: frame {slab} is no slab of the cache")
            elif which != wanted:
                found.wrong.append(f"{name}: slab {slab} has {page.word} of {full} objects out")
            else:
                slabs.append(slab)
    return slabs


def _check_slab(state: "State", cache: int, slab: int, found: _Found) -> int:
    """Compare a slab with its free list; return how many of its objects are out."""
    record = state.kmem_cache[cache]
    page = state.page[slab]
    name = f"cache {cache_name(state, cache)} slab {slab}"
    for pfn in range(slab, slab + (1 << record.order)):
        if pfn in found.frames:
            found.wrong.append(f"{name}: frame {pfn} is of two slabs")
        if state.page[pfn].mapping != cache or not state.page[pfn].page_flags & PageFlag.SLAB:
            found.wrong.append(f"{name}: frame {pfn} is not flagged so")
        found.frames[pfn] = cache
    if page.refcount != 1:
        found.wrong.append(f"{name}: has {page.refcount} references, not the allocator's one")
    numbers = _free_numbers(state, cache, slab, found)
    if len(set(numbers)) != len(numbers) or not set(numbers) <= set(range(record.objects_per_slab)):
        found.wrong.append(f"{name}: its free list says {numbers}")
        return int(page.word)
    begin = (slab << PAGE_SHIFT) + page.private
    out = set(range(record.objects_per_slab)) - set(numbers)
    found.out |= {begin + number * record.stride for number in out}
    return len(out)


def _free_numbers(state: "State", cache: int, slab: int, found: _Found) -> list[int]:
    """Return the objects on a slab's free list, after a look at where it stands."""
    record = state.kmem_cache[cache]
    slab_cache = state.slab_cache[cache]
    page = state.page[slab]
    name = f"cache {cache_name(state, cache)} slab {slab}"
    if page.index == NIL:
        if slab_cache.placement != Placement.OBJECT or page.word != record.objects_per_slab:
            found.wrong.append(f"{name}: has no free list")
        return []
    size = 1 << slab_cache.index_shift
    begin = page.index + slab_cache.index_offset
    last_word = (begin + size * record.objects_per_slab - 1) >> WORD_SHIFT
    there = np.asarray(state.slab_word)[begin >> WORD_SHIFT : last_word + 1]
    first = begin & (WORD_BYTES - 1)
    held = there.tobytes()[first : first + size * record.objects_per_slab]
    numbers = [int.from_bytes(held[at : at + size], "little") for at in range(0, len(held), size)]
    free = numbers[page.word :]
    start = slab << PAGE_SHIFT
    end = start + (PAGE_SIZE << record.order)
    list_end = page.index + slab_cache.descriptor_bytes
    if slab_cache.placement == Placement.OFF:
        found.free_lists[page.index] = name
    elif page.index < start or list_end > end:
        found.wrong.append(f"{name}: its free list is not on it")
    elif slab_cache.placement == Placement.OBJECT:
        holder = start + page.private + free[-1] * record.stride + slab_cache.object_offset if free else NIL
        if page.index != holder:
            found.wrong.append(f"{name}: its free list is not in the object that goes last")
    elif list_end > start + page.private and page.index < (
        start + page.private + record.objects_per_slab * record.stride
    ):
        found.wrong.append(f"{name}: its free list and its objects overlap")
    return free


def _check_arrays(state: "State", cache: int, name: str, found: _Found) -> int:
    """Compare a cache's arrays with what is out of its slabs; return how many objects they hold."""
    nr_arrays = state.knob[Knob.NR_CPUS] + state.knob[Knob.NR_NODES]
    total = 0
    for index in range(cache * nr_arrays, (cache + 1) * nr_arrays):
        array = state.slab_array[index]
        where = f"{name} array {index % nr_arrays}"
        if not 0 <= array.avail <= array.limit:
            found.wrong.append(f"{where}: holds {array.avail} objects, of at most {array.limit}")
            continue
        held = np.asarray(state.slab_entry)[array.first_entry : array.first_entry + array.avail].tolist()
        total += len(held)
        for start in held:
            if start not in found.out:
                found.wrong.append(f"{where}: holds 0x{start:x}, which is not out of a slab")
            elif start in found.in_arrays:
                found.wrong.append(f"{where}: holds 0x{start:x}, which another array holds, or itself")
            found.in_arrays.add(start)
    return total


def _check_frames(state: "State", found: _Found) -> list[str]:
    """Compare all frames with the slabs that were found, and the counts of /proc/vmstat with those."""
    page_flags = state.page["page_flags"]
    flagged = set(np.flatnonzero(page_flags & PageFlag.SLAB).tolist())
    wrong = each(
        sorted(flagged ^ set(found.frames)),
        lambda pfn: f"frame {pfn}: is flagged SLAB or of a slab, not both",
    )
    large = np.flatnonzero((page_flags & _LARGE == _LARGE) & (state.page["private"] > LARGEST))
    nr_large = int((1 << state.page["order"][large].astype(np.int64)).sum())
    wrong += differ(
        "slab_stat LARGE_FRAMES", state.slab_stat[SlabStat.LARGE_FRAMES], nr_large, "frames of large objects"
    )
    reclaimable = sum(
        1 for cache in found.frames.values() if state.kmem_cache[cache].slab_flags & SlabFlag.RECLAIM_ACCOUNT
    )
    wrong += differ(
        "NR_SLAB_RECLAIMABLE", state.vm_stat[VmStat.NR_SLAB_RECLAIMABLE], reclaimable, "frames of such slabs"
    )
    others = len(found.frames) - reclaimable + nr_large
    return wrong + differ(
        "NR_SLAB_UNRECLAIMABLE", state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE], others, "frames of the others"
    )


def _check_off_slab(found: _Found) -> list[str]:
    """Return what is wrong with free lists that are not on their slabs: each is an object in use."""
    return [
        f"{name}: its free list at 0x{paddr:x} is no object in use"
        for paddr, name in found.free_lists.items()
        if paddr not in found.out or paddr in found.in_arrays
    ]
