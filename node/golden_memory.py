"""What was in memory before a recording's first command, beside its controller's own pages.

    files       the recorded machine ran from an initramfs: its files' pages stay in memory, and cannot be reclaimed
    shared      pages of shared memory that its programs have
    kernel      whatever else was not free: the recording says how much of each zone was

How much fits before memory runs out follows from it, and a process's resident pages are its share of the files too.

Linux: fs/ramfs/inode.c (mapping_set_unevictable), fs/proc/base.c (proc_oom_score, which counts file pages).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from node.counters import Current, Knob, Request, VmEvent
from node.hw.page_table import pte_position
from node.hw.pte import pte_pfn
from node.inode_kind import InodeKind
from node.joints import alloc_frames, drain_all_pages
from node.pagecache.inode import new_file, page_of_file
from node.pagecache.shmem import new_shmem_inode
from node.phys.buddy import MAX_ORDER
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_PAGES, ZONE_NAMES, ZoneId
from node.reclaim.lru import LruList, lru_add, lru_del
from node.touch import access_pages, become
from node.vm.mmap import MapFlag, do_mmap
from node.vm.page_tables import pte_alloc
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL, Gfp
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State

GFP_OF_ZONE: Final = {ZoneId.DMA: GFP_KERNEL | Gfp.DMA, ZoneId.DMA32: GFP_KERNEL | Gfp.DMA32}


@dataclass(frozen=True, slots=True)
class ZoneFigures:
    """What a recording says of a zone, in pages."""

    managed: int
    free: int


@dataclass(frozen=True, slots=True)
class DriverFiles:
    """Inodes of the pages that the recorded machine's programs were loaded from and share."""

    image: int
    shared: int


@entry
def read_file(state: "State", inode: int, nr_pages: int) -> int:
    """Bring a file's first pages into memory; return how many there are."""
    for index in range(nr_pages):
        if page_of_file(state, inode, index) == NIL:
            return index
    return nr_pages


def make_files(state: "State", nr_image: int, nr_shared: int) -> DriverFiles:
    """Put the files into memory."""
    image = new_file(state, nr_image, 0)
    state.inode[image].kind = InodeKind.RAMFS
    read_file(state, image, nr_image)
    shared = new_shmem_inode(state, nr_shared, 0)
    read_file(state, shared, nr_shared)
    return DriverFiles(image, shared)


@entry
def pte_alloc_at(state: "State", mm_index: int, vaddr: int) -> int:
    """Give a process the page tables for ``vaddr``, where a page of the kernel's own is mapped; return 0, or NIL."""
    return NIL if pte_alloc(state, mm_index, vaddr) == NIL else 0


@entry
def activate_page(state: "State", mm_index: int, vaddr: int) -> int:
    """Move a page that a process maps to the active list; return 0."""
    pfn = pte_pfn(state.pt_word[pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)])
    lru_del(state, pfn)
    lru_add(state, LruList.ACTIVE_ANON, pfn)
    return 0


def map_pages(state: "State", mm_index: int, start: int, nr_pages: int, place: tuple[int, int]) -> None:
    """Map pages of a file at ``start``, for reading; ``place`` is the file's inode and its first page."""
    request = state.request
    request[Request.A0] = start
    request[Request.A1] = nr_pages * PAGE_SIZE
    request[Request.A2] = VmFlag.READ
    request[Request.A3] = MapFlag.SHARED | MapFlag.FIXED
    request[Request.A4], request[Request.A5] = place
    request[Request.A6] = PAGE_SIZE
    do_mmap(state, mm_index)


def use_pages(state: "State", mm_index: int, start: int, nr_pages: int) -> None:
    """Let a process use pages of the files, so that just those are mapped; its faults are not counted."""
    mm = state.mm[mm_index]
    minflt, majflt = int(mm.minflt), int(mm.majflt)
    pgfault = int(state.vm_event[VmEvent.PGFAULT])
    around = int(state.knob[Knob.FAULT_AROUND_PAGES])
    state.knob[Knob.FAULT_AROUND_PAGES] = 1
    become(state, mm_index)
    request = state.request
    request[Request.A0], request[Request.A1], request[Request.A2] = start, nr_pages, PAGE_SIZE
    request[Request.A3] = 0
    access_pages(state, mm_index)
    state.knob[Knob.FAULT_AROUND_PAGES] = around
    mm.minflt, mm.majflt = minflt, majflt
    state.vm_event[VmEvent.PGFAULT] = pgfault


def recorded_zones(golden: dict[str, Any]) -> dict[ZoneId, ZoneFigures]:
    """Return how large each zone was and how much of it was free before the first command, if the recording says."""
    zones = golden.get("machine", {}).get("zones", [])
    return {
        ZoneId(ZONE_NAMES.index(zone["zone"])): ZoneFigures(zone["managed"], zone["pages_free"])
        for zone in zones
        if zone["zone"] in ZONE_NAMES
        and isinstance(zone.get("managed"), int)
        and isinstance(zone.get("pages_free"), int)
    }


def use_the_rest(state: "State", zones: dict[ZoneId, ZoneFigures]) -> None:
    """Let the kernel have pages of each zone until no more are free than were in the recorded machine."""
    drain_all_pages(state)
    state.current[Current.CPU] = 0
    for kind, recorded in zones.items():
        if kind in GFP_OF_ZONE and int(state.zone[kind].managed):
            _take(state, kind, int(state.zone[kind].nr_free) - recorded.free)
            _reserve(state, kind, int(state.zone[kind].managed) - recorded.managed)
    drain_all_pages(state)


def _take(state: "State", kind: ZoneId, excess: int) -> None:
    order = MAX_ORDER
    while excess > 0 and order >= 0:
        size = 1 << order
        pfn = alloc_frames(state, order, GFP_OF_ZONE[kind]) if size <= excess else NIL
        if pfn == NIL:
            order -= 1
            continue
        state.page["page_flags"][pfn : pfn + size] |= PageFlag.KERNEL
        state.page["refcount"][pfn : pfn + size] = 1
        excess -= size


def _reserve(state: "State", kind: ZoneId, excess: int) -> None:
    """Make pages that the kernel has ones that it had from the start, or the other way round.

    Builds of a kernel differ in that by some tens of pages, and sums of memory should be the recorded one's.
    """
    of_zone = np.repeat(np.asarray(state.pageblock["zone"]) == kind, PAGEBLOCK_PAGES)[: len(state.page)]
    page_flags = state.page["page_flags"]
    before, after = PageFlag.KERNEL, PageFlag.RESERVED
    if excess < 0:
        before, after = after, before
    if excess == 0:
        return
    frames = np.flatnonzero(of_zone & (np.asarray(page_flags) == before))[-abs(excess) :]
    page_flags[frames] = after
    state.page["refcount"][frames] = 1 if after == PageFlag.KERNEL else 0
    state.zone[kind].managed -= len(frames) if excess > 0 else -len(frames)
