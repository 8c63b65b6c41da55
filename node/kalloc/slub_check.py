"""What must hold of SLUB's slabs at any time: every object is in one place, every slab too, and counts are right.

    an object is in use, or on its slab's freelist, or on a CPU's freelist     each at most once
    a slab is a CPU's, or on a CPU's partial list, or on a node's, or full     exactly one of these
    frames flagged SLAB belong to exactly one slab, whose descriptor says so

An object that is on no freelist is in use: as many are as the cache handed out. After an error that took objects
out of use (a broken link, a slab that was disabled) there may be more of them.

Written apart from the kernels: lists are walked here, from the tables alone.
"""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob, VmStat
from node.findings import differ, each
from node.kalloc.kmem_cache import MAX_CACHES, NO_OBJECT, WORD_SHIFT, Allocator, SlabFlag
from node.kalloc.slub_records import (
    COUNT_MASK,
    FROZEN,
    OBJECTS_SHIFT,
    LargeStat,
)
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State


class _Slab:
    """A slab as its first frame's descriptor has it."""

    def __init__(self, state: "State", pfn: int) -> None:
        page = state.page[pfn]
        self.pfn = pfn
        self.cache = page.mapping
        self.freelist = page.index
        self.inuse = page.private & COUNT_MASK
        self.objects = (page.private >> OBJECTS_SHIFT) & COUNT_MASK
        self.frozen = bool(page.private & FROZEN)
        self.nr_frames = 1 << page.order

    def starts(self, state: "State") -> range:
        """Return the addresses of its objects."""
        first = (self.pfn << PAGE_SHIFT) + state.slub_cache[self.cache].red_left
        stride = state.kmem_cache[self.cache].stride
        return range(first, first + self.objects * stride, stride)


def check_slub(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with SLUB's tables; none where another allocator is in use."""
    if state.knob[Knob.ALLOCATOR] != Allocator.SLUB:
        return []
    slabs, wrong = _find_slabs(state)
    if wrong:
        return wrong
    places: Counter[int] = Counter()
    of_cpus, wrong = _on_cpus(state, slabs, places)
    wrong += _on_nodes(state, slabs, places)
    wrong += _check_places(state, slabs, places)
    wrong += _check_objects(state, slabs, of_cpus)
    return wrong + _check_counts(state, slabs)


def _find_slabs(state: "State") -> tuple[dict[int, _Slab], list[str]]:
    """Return all slabs by their first frames, and what is wrong with the frames flagged SLAB."""
    flagged = np.flatnonzero(state.page["page_flags"] & PageFlag.SLAB)
    heads = np.unique(state.page["word"][flagged]).tolist()
    slabs: dict[int, _Slab] = {}
    held: Counter[int] = Counter()
    for head in heads:
        if not 0 <= head < len(state.page) or not state.page[head].page_flags & PageFlag.SLAB:
            return {}, [f"slab {head}: its frames say so, but it is none"]
        slab = _Slab(state, head)
        if not 0 < slab.cache < MAX_CACHES or state.kmem_cache[slab.cache].object_size == 0:
            return {}, [f"slab {head}: belongs to cache {slab.cache}, which is none"]
        slabs[head] = slab
        held.update(range(head, head + slab.nr_frames))
    lost = sorted(set(flagged.tolist()) ^ set(held))
    twice = [pfn for pfn, times in held.items() if times > 1]
    wrong = each(lost, "frame {}: is flagged SLAB or part of a slab, not both".format)
    wrong += each(twice, "frame {}: is part of two slabs".format)
    loose = [pfn for pfn in slabs if state.page[pfn].refcount != 1 or state.page[pfn].content]
    return slabs, wrong + each(loose, "slab {}: has not one reference, or a content".format)


def _on_cpus(
    state: "State", slabs: dict[int, _Slab], places: "Counter[int]"
) -> tuple[dict[int, list[int]], list[str]]:
    """Note the slabs of CPUs in ``places``; return the heads of the CPUs' freelists by slab, and what is wrong."""
    wrong: list[str] = []
    freelists: dict[int, list[int]] = {}
    nr_cpus = state.knob[Knob.NR_CPUS]
    for cache in np.flatnonzero(state.kmem_cache["object_size"]).tolist():
        for index in range(cache * nr_cpus, (cache + 1) * nr_cpus):
            cpu = state.kmem_cache_cpu[index]
            name = f"cache {cache} CPU {index - cache * nr_cpus}"
            if cpu.slab == NIL:
                wrong += differ(f"{name}: freelist without a slab", cpu.freelist, NO_OBJECT, "expected")
                wrong += differ(f"{name}: nr_frames", cpu.nr_frames, 0, "frames of no slab")
            elif cpu.slab in slabs and slabs[cpu.slab].cache == cache:
                places[cpu.slab] += 1
                freelists.setdefault(cpu.slab, []).append(cpu.freelist)
                wrong += differ(
                    f"{name}: nr_frames", cpu.nr_frames, slabs[cpu.slab].nr_frames, "its slab has"
                )
            else:
                wrong.append(f"{name}: slab {cpu.slab} is none of this cache")
            listed = _walk(state, cpu.partial)
            for place, pfn in enumerate(listed):
                if pfn not in slabs or slabs[pfn].cache != cache or not slabs[pfn].frozen:
                    wrong.append(
                        f"{name}: slab {pfn} on its partial list is not frozen, or not of this cache"
                    )
                    break
                places[pfn] += 1
                left = len(listed) - place
                wrong += differ(f"{name}: slab {pfn} counts", state.page[pfn].prev, left, "slabs from it on")
    return freelists, wrong


def _walk(state: "State", pfn: int) -> list[int]:
    listed: list[int] = []
    while pfn != NIL and 0 <= pfn < len(state.page) and len(listed) <= len(state.page):
        listed.append(pfn)
        pfn = state.page[pfn].next
    return listed


def _on_nodes(state: "State", slabs: dict[int, _Slab], places: "Counter[int]") -> list[str]:
    wrong: list[str] = []
    nr_nodes = state.knob[Knob.NR_NODES]
    for cache in np.flatnonzero(state.kmem_cache["object_size"]).tolist():
        for nid in range(nr_nodes):
            node = state.kmem_cache_node[cache * nr_nodes + nid]
            name = f"cache {cache} node {nid}"
            listed = _walk(state, node.first) if node.nr_partial else []
            wrong += differ(f"{name}: nr_partial", node.nr_partial, len(listed), "slabs listed")
            if listed:
                wrong += differ(f"{name}: last", node.last, listed[-1], "the last listed")
            before = NIL
            for pfn in listed:
                if pfn not in slabs or slabs[pfn].cache != cache or slabs[pfn].frozen:
                    wrong.append(f"{name}: slab {pfn} on its list is frozen, or not of this cache")
                    break
                places[pfn] += 1
                wrong += differ(f"{name}: slab {pfn} prev", state.page[pfn].prev, before, "the one before it")
                before = pfn
    return wrong


def _check_places(state: "State", slabs: dict[int, _Slab], places: "Counter[int]") -> list[str]:
    wrong: list[str] = []
    for pfn, slab in slabs.items():
        is_full = slab.inuse == slab.objects
        disabled = slab.frozen and is_full and state.slub_cache[slab.cache].is_debug
        expected = 0 if disabled or (is_full and not slab.frozen) else 1
        if places[pfn] != expected:
            wrong.append(
                f"slab {pfn}: {slab.inuse} of {slab.objects} objects out, frozen {slab.frozen}: on {places[pfn]} lists"
            )
    return each(range(len(wrong)), wrong.__getitem__)


def _chain(state: "State", slab: _Slab, first: int, free: "Counter[int]") -> int:
    """Count the objects of a freelist in ``free``; return how many there are."""
    offset = state.slub_cache[slab.cache].link_offset
    starts = slab.starts(state)
    nr_objects = 0
    while first != NO_OBJECT and nr_objects <= slab.objects:
        free[first] += 1
        nr_objects += 1
        if first not in starts:
            break
        first = state.slab_word[(first + offset) >> WORD_SHIFT]
    return nr_objects


def _check_objects(state: "State", slabs: dict[int, _Slab], of_cpus: dict[int, list[int]]) -> list[str]:
    wrong: list[str] = []
    out: Counter[int] = Counter()
    for pfn, slab in slabs.items():
        free: Counter[int] = Counter()
        own = _chain(state, slab, slab.freelist, free)
        wrong += differ(f"slab {pfn}: inuse", slab.inuse, slab.objects - own, "objects not on its freelist")
        for first in of_cpus.get(pfn, []):
            _chain(state, slab, first, free)
        starts = slab.starts(state)
        stray = [paddr for paddr in free if paddr not in starts]
        wrong += each(stray, f"slab {pfn}: 0x{{:x}} is free, but no object".format)
        twice = [paddr for paddr, times in free.items() if times > 1]
        wrong += each(twice, f"slab {pfn}: object 0x{{:x}} is free twice".format)
        out[slab.cache] += slab.objects - len(free)
    had_errors = state.slab_report[0].serial > 0
    for cache in np.flatnonzero(state.kmem_cache["object_size"]).tolist():
        handed_out = state.kmem_cache[cache].nr_objects
        if handed_out != out[cache] and not (had_errors and handed_out < out[cache]):
            wrong.append(
                f"cache {cache}: handed out {handed_out} objects, but {out[cache]} are on no freelist"
            )
    return wrong


def _check_counts(state: "State", slabs: dict[int, _Slab]) -> list[str]:
    wrong: list[str] = []
    frames = {
        VmStat.NR_SLAB_RECLAIMABLE: 0,
        VmStat.NR_SLAB_UNRECLAIMABLE: state.kmalloc_large[LargeStat.FRAMES],
    }
    nr_nodes = state.knob[Knob.NR_NODES]
    nr_slabs: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    for slab in slabs.values():
        reclaimable = state.kmem_cache[slab.cache].slab_flags & SlabFlag.RECLAIM_ACCOUNT
        which = VmStat.NR_SLAB_RECLAIMABLE if reclaimable else VmStat.NR_SLAB_UNRECLAIMABLE
        frames[which] += slab.nr_frames
        nr_slabs[slab.cache] += 1
        objects[slab.cache] += slab.objects
    for which, counted in frames.items():
        wrong += differ(which.name, state.vm_stat[which], counted, "frames of slabs and large blocks")
    for cache in np.flatnonzero(state.kmem_cache["object_size"]).tolist():
        nodes = state.kmem_cache_node[cache * nr_nodes : (cache + 1) * nr_nodes]
        name = f"cache {cache}"
        wrong += differ(f"{name}: nr_slabs", state.kmem_cache[cache].nr_slabs, nr_slabs[cache], "slabs")
        wrong += differ(f"{name}: slabs of its nodes", int(nodes["nr_slabs"].sum()), nr_slabs[cache], "slabs")
        counted = int(nodes["total_objects"].sum())
        wrong += differ(f"{name}: total_objects", counted, objects[cache], "objects of its slabs")
    return wrong
