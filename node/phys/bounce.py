"""Bounce buffers: memory that every device can reach, for transfers of memory that it cannot (swiotlb).

    buffer  ........[====]......          out of the device's reach
                    copy |  ^ copy
                         v  |
    pool    |--area of 128 slots--|--area--|--area--| ...       within its reach
             4 3 2 1 0 0 0 0 3 2 1 ...                          contiguous free slots from here to the area's end

The pool is cut into slots of 2 KiB. A slot says how many free slots there are from it on, up to the end of its
area of 128, so a run is found by looking at its first slot alone; one that is taken says 0. The search starts
behind the last run that was handed out. No run crosses areas, so no piece is larger than 256 KiB. Requests are
of whole pages here, so they begin at even slots.

There is a pool for each width that does not reach all memory: below 4 GiB for 32 bits, 64 MiB, if there is
memory above; below 16 MiB for 24 bits, of the smallest size, 1 MiB, if there is memory above.

Linux 6.1: kernel/dma/swiotlb.c (swiotlb_do_find_slots, swiotlb_release_slots, swiotlb_bounce),
include/linux/swiotlb.h (IO_TLB_SIZE, IO_TLB_SEGSIZE, IO_TLB_DEFAULT_SIZE; IO_TLB_MIN_SLABS in swiotlb.c).
# Differs from Linux: a machine without devices has no pool; a pool is made of areas of 256 KiB from the buddy
# system, not of one block from memblock; it has no part for each CPU; a 24-bit device has a pool of its own, where
# Linux has only that below 4 GiB and refuses what it cannot reach of it.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.content import copy_content
from node.counters import Current, Request
from node.hw.cost import Cost
from node.hw.dma import DmaDirection
from node.joints import alloc_frames, free_frames
from node.phys.page import PageFlag
from shared.constants import KIB, MIB, NIL, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

BOUNCE_POOL = np.dtype(
    [
        ("first_slot", np.int32),
        ("nr_slots", np.int32),  # 0: there is no such pool
        ("next_slot", np.int32),  # where the search begins, from first_slot
        ("nr_used", np.int32),
        ("max_used", np.int32),  # the most that were ever used at once
        ("nr_full", np.int32),  # requests for which there was no run of free slots
    ],
    align=True,
)
BOUNCE_SLOT = np.dtype(
    [
        ("nr_free", np.int32),  # free slots from this one to the end of the run or area; 0: in use
        ("orig_pfn", np.int32),  # in use: the frame that it stands for
    ],
    align=True,
)

IO_TLB_SIZE: Final = 2 * KIB
IO_TLB_SEGSIZE: Final = 128  # slots in a row at most
IO_TLB_DEFAULT_BYTES: Final = 64 * MIB
IO_TLB_MIN_BYTES: Final = 1 * MIB
SLOTS_PER_PAGE: Final = PAGE_SIZE // IO_TLB_SIZE
AREA_FRAMES: Final = IO_TLB_SEGSIZE // SLOTS_PER_PAGE
AREA_ORDER: Final = AREA_FRAMES.bit_length() - 1


class BouncePool(IntEnum):
    """Places in ``state.bounce_pool``: the width of the devices that a pool is for."""

    ISA = 0  # 24 bits
    PCI = 1  # 32 bits


NR_BOUNCE_POOLS: Final = len(BouncePool)
POOL_BYTES: Final = {BouncePool.ISA: IO_TLB_MIN_BYTES, BouncePool.PCI: IO_TLB_DEFAULT_BYTES}


@entry
def fill_bounce_pool(state: "State", which: int, nr_areas: int, gfp: int) -> int:
    """Give a pool, whose ``first_slot`` is set, up to ``nr_areas`` areas within reach; return how many it got.

    ``Request.A0`` is the first frame that is out of reach.
    """
    pool = state.bounce_pool[which]
    behind = state.request[Request.A0]
    while pool.nr_slots < nr_areas * IO_TLB_SEGSIZE:
        pfn = alloc_frames(state, AREA_ORDER, gfp)
        if pfn == NIL:
            break
        if pfn + AREA_FRAMES > behind:
            free_frames(state, pfn, AREA_ORDER)
            break
        take_for_device(state, pfn, AREA_FRAMES)
        first = pool.first_slot + pool.nr_slots
        state.bounce_area[first // IO_TLB_SEGSIZE] = pfn
        for offset in range(IO_TLB_SEGSIZE):
            state.bounce_slot[first + offset].nr_free = IO_TLB_SEGSIZE - offset
        pool.nr_slots += IO_TLB_SEGSIZE
    return pool.nr_slots // IO_TLB_SEGSIZE


@kernel
def take_for_device(state: "State", pfn: int, nr_frames: int) -> None:
    """Make allocated frames a driver's: each has a reference of its own from now on (split_page), and is empty."""
    for frame in range(pfn, pfn + nr_frames):
        page = state.page[frame]
        page.page_flags = PageFlag.DMA
        page.refcount = 1
        page.content = 0
        page.word = 0


@kernel
def give_back_from_device(state: "State", pfn: int, nr_frames: int) -> None:
    """Undo ``take_for_device``; the frames are then to be freed as they were allocated."""
    for frame in range(pfn, pfn + nr_frames):
        page = state.page[frame]
        page.page_flags = 0
        page.refcount = 0


@kernel
def slot_pfn(state: "State", slot: int) -> int:
    """Return the frame that a slot is in."""
    return state.bounce_area[slot // IO_TLB_SEGSIZE] + slot % IO_TLB_SEGSIZE // SLOTS_PER_PAGE


@kernel
def _recount_before(state: "State", slot: int, nr_free: int) -> None:
    """Count the free slots before ``slot`` anew, which begins a run of ``nr_free`` free ones, within their area."""
    index = slot - 1
    count = nr_free
    while index >= 0 and index % IO_TLB_SEGSIZE != IO_TLB_SEGSIZE - 1 and state.bounce_slot[index].nr_free:
        count += 1
        state.bounce_slot[index].nr_free = count
        index -= 1


@kernel
def _find_run(state: "State", which: int, nr_slots: int) -> int:
    """Return the first slot, page-aligned, of ``nr_slots`` free ones; or NIL."""
    pool = state.bounce_pool[which]
    if nr_slots > pool.nr_slots - pool.nr_used:
        return NIL
    begin = (pool.next_slot + SLOTS_PER_PAGE - 1) // SLOTS_PER_PAGE * SLOTS_PER_PAGE
    for step in range(0, pool.nr_slots, SLOTS_PER_PAGE):
        slot = pool.first_slot + (begin + step) % pool.nr_slots
        if state.bounce_slot[slot].nr_free >= nr_slots:
            return slot
    return NIL


@kernel
def alloc_bounce(state: "State", which: int, orig_pfn: int, nr_frames: int) -> int:
    """Reserve slots for frames [orig_pfn, +nr_frames), 64 at most; return the first, or NIL from a full pool."""
    pool = state.bounce_pool[which]
    nr_slots = nr_frames * SLOTS_PER_PAGE
    slot = _find_run(state, which, nr_slots)
    if slot == NIL:
        pool.nr_full += 1
        return NIL
    for offset in range(nr_slots):
        taken = state.bounce_slot[slot + offset]
        taken.nr_free = 0
        taken.orig_pfn = orig_pfn + offset // SLOTS_PER_PAGE
    _recount_before(state, slot, 0)
    pool.next_slot = (slot - pool.first_slot + nr_slots) % pool.nr_slots
    pool.nr_used += nr_slots
    pool.max_used = max(pool.max_used, pool.nr_used)
    return slot


@kernel
def free_bounce(state: "State", which: int, slot: int, nr_frames: int) -> None:
    """Give back the slots of ``alloc_bounce``; the run grows together with the free ones around it."""
    nr_slots = nr_frames * SLOTS_PER_PAGE
    behind = slot + nr_slots
    count = state.bounce_slot[behind].nr_free if behind % IO_TLB_SEGSIZE else 0
    for offset in range(nr_slots):
        freed = state.bounce_slot[behind - 1 - offset]
        count += 1
        freed.nr_free = count
        freed.orig_pfn = 0
    _recount_before(state, slot, count)
    state.bounce_pool[which].nr_used -= nr_slots


@kernel
def bounce(state: "State", slot: int, nr_frames: int, direction: int) -> None:
    """Copy a buffer into its slots (TO_DEVICE) or back (FROM_DEVICE); the current CPU pays."""
    for offset in range(nr_frames):
        first = slot + offset * SLOTS_PER_PAGE
        inside = slot_pfn(state, first)
        outside = state.bounce_slot[first].orig_pfn
        if direction == DmaDirection.TO_DEVICE:
            copy_content(state, inside, outside)
        else:
            copy_content(state, outside, inside)
    state.current[Current.CLOCK_PS] += nr_frames * state.cost[Cost.PAGE_COPY]
