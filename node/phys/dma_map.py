"""The kernel's DMA interface: memory that a device shall use, made such that it can.

    coherent     dma_alloc_coherent(order): a block within reach, for as long as the driver wants
    streaming    dma_map_sg(frames) ... transfer ... dma_unmap_sg

                 frames of a buffer   5 6 7 | 90 91 | 12 | 4100 4101
                 segments             [5..7] [90,91] [12] [ slots ]<--- out of reach: copied to bounce buffers
                                        contiguous frames are one segment, up to what the device takes

For a coherent block the zone is chosen by the device's width; if the block still lies out of reach it is given back
and a narrower zone tried. Of a list that needs more segments than the device takes, as many frames as fit are mapped,
and the driver comes again with the rest.

A mapping that needs bounce buffers copies: when it is mapped, whatever its direction, so that what a device does
not write holds no other's data; when it is unmapped, if the device may have written; between the two when the
driver says so (dma_sync_sg_for_...). If a pool is full the whole mapping is undone and fails. A mapping belongs to a
*driver's request*, which has a row of segments of its own.

Linux 6.1: kernel/dma/direct.c (dma_direct_optimal_gfp_mask, dma_coherent_ok, __dma_direct_alloc_pages,
dma_direct_map_sg), kernel/dma/swiotlb.c (swiotlb_tbl_map_single copies always; older kernels, and
``era: lecture``, only towards the device), block/blk-merge.c (contiguous pages are merged before they are mapped).
# Differs from Linux: everything is whole pages; there is no IOMMU, and no segment boundary such as the 64 KiB
# pages of the ISA controller.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import Current, Era, Knob
from node.hw.cost import Cost
from node.hw.dma import ISA_BITS, PCI_BITS, DmaDirection, reaches
from node.joints import alloc_frames, free_frames
from node.phys.bounce import (
    SLOTS_PER_PAGE,
    BouncePool,
    alloc_bounce,
    bounce,
    free_bounce,
    give_back_from_device,
    slot_pfn,
    take_for_device,
)
from shared.constants import NIL, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL, Gfp
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

DMA_SEGMENT = np.dtype(
    [
        ("orig_pfn", np.int32),  # of the buffer
        ("bus_pfn", np.int32),  # what the device is told: the same, or a frame of the pool
        ("nr_frames", np.int32),
        ("slot", np.int32),  # its first bounce slot, or NIL
    ],
    align=True,
)
DMA_MAPPING = np.dtype(
    [
        ("first_segment", np.int32),  # of its row in state.dma_segment, MAX_SEGMENTS long
        ("nr_segments", np.int32),  # 0: nothing is mapped
        ("nr_frames", np.int32),
        ("dma_device", np.int32),
        ("direction", np.int32),  # DmaDirection, by the device's view of this buffer
        ("spare", np.int32),
    ],
    align=True,
)


# --- coherent ---------------------------------------------------------------------------------------------


@kernel
def optimal_gfp(state: "State", device_index: int) -> int:
    """Return the zone modifier for a device's width (dma_direct_optimal_gfp_mask)."""
    bits = state.dma_device[device_index].address_bits
    if bits <= ISA_BITS:
        return Gfp.DMA
    if bits <= PCI_BITS:
        return Gfp.DMA32
    return 0


@kernel
def dma_alloc_coherent(state: "State", device_index: int, order: int) -> int:
    """Return the first of 2**order frames of zeroes that the device reaches, or NIL; a failure is counted.

    They carry PageFlag.DMA, and each has one reference.
    """
    zone = optimal_gfp(state, device_index)
    nr_frames = 1 << order
    pfn = alloc_frames(state, order, GFP_KERNEL | zone)
    while pfn != NIL and not reaches(state, device_index, pfn, nr_frames):
        free_frames(state, pfn, order)
        pfn = NIL
        if zone != Gfp.DMA:
            zone = Gfp.DMA if zone else Gfp.DMA32
            pfn = alloc_frames(state, order, GFP_KERNEL | zone)
    device = state.dma_device[device_index]
    if pfn == NIL:
        device.nr_errors += 1
        return NIL
    take_for_device(state, pfn, nr_frames)
    device.nr_held += nr_frames
    state.current[Current.CLOCK_PS] += nr_frames * state.cost[Cost.PAGE_ZERO]
    return pfn


@kernel
def dma_free_coherent(state: "State", device_index: int, pfn: int, order: int) -> None:
    """Give back a block of ``dma_alloc_coherent``."""
    nr_frames = 1 << order
    give_back_from_device(state, pfn, nr_frames)
    state.dma_device[device_index].nr_held -= nr_frames
    free_frames(state, pfn, order)


# --- streaming --------------------------------------------------------------------------------------------


@kernel
def pool_of(state: "State", device_index: int) -> int:
    """Return the BouncePool that a device's bounce buffers come from."""
    return BouncePool.ISA if state.dma_device[device_index].address_bits <= ISA_BITS else BouncePool.PCI


@kernel
def _segment_at(state: "State", device_index: int, first: int, limit: int) -> int:
    """Return how many frames from ``dma_frame[first]`` on, ``limit`` at most, are one segment of the device."""
    most = min(limit, state.dma_device[device_index].max_segment_frames)
    length = 1
    while length < most and state.dma_frame[first + length] == state.dma_frame[first] + length:
        length += 1
    return length


@kernel
def frames_that_fit(state: "State", device_index: int, first: int, limit: int) -> int:
    """Return how many frames from ``dma_frame[first]`` on, ``limit`` at most, one mapping of the device holds."""
    nr_frames = 0
    for _ in range(state.dma_device[device_index].max_segments):
        if nr_frames == limit:
            break
        nr_frames += _segment_at(state, device_index, first + nr_frames, limit - nr_frames)
    return nr_frames


@kernel
def _bounces_at_map(state: "State", direction: int) -> int:
    """Return whether a buffer is copied to its slots when it is mapped."""
    if state.knob[Knob.ERA] == Era.LECTURE and direction == DmaDirection.FROM_DEVICE:
        return 0
    return 1


@kernel
def _count_copy(state: "State", device_index: int, nr_frames: int) -> None:
    state.dma_device[device_index].bounced_bytes += nr_frames * PAGE_SIZE


@kernel
def _map_segment(state: "State", mapping_index: int, pfn: int, nr_frames: int) -> int:
    """Add a segment to a mapping, with bounce buffers if it is out of reach; return 0, or NIL from a full pool."""
    mapping = state.dma_mapping[mapping_index]
    segment = state.dma_segment[mapping.first_segment + mapping.nr_segments]
    segment.orig_pfn = pfn
    segment.bus_pfn = pfn
    segment.nr_frames = nr_frames
    segment.slot = NIL
    if not reaches(state, mapping.dma_device, pfn, nr_frames):
        slot = alloc_bounce(state, pool_of(state, mapping.dma_device), pfn, nr_frames)
        if slot == NIL:
            return NIL
        segment.slot = slot
        segment.bus_pfn = slot_pfn(state, slot)
        if _bounces_at_map(state, mapping.direction):
            bounce(state, slot, nr_frames, DmaDirection.TO_DEVICE)
            _count_copy(state, mapping.dma_device, nr_frames)
    mapping.nr_segments += 1
    mapping.nr_frames += nr_frames
    return 0


@kernel
def dma_map_sg(state: "State", mapping_index: int, first: int, nr_frames: int) -> int:
    """Map ``dma_frame[first : first + nr_frames]`` for the mapping's device and direction.

    The mapping must be empty. Returns how many of the frames were mapped (as many as ``frames_that_fit``), or
    NIL, with nothing mapped and an error counted, if there are no bounce buffers.
    """
    mapping = state.dma_mapping[mapping_index]
    nr_mapped = frames_that_fit(state, mapping.dma_device, first, nr_frames)
    mapping.nr_segments = 0
    mapping.nr_frames = 0
    while mapping.nr_frames < nr_mapped:
        at = first + mapping.nr_frames
        length = _segment_at(state, mapping.dma_device, at, nr_mapped - mapping.nr_frames)
        if _map_segment(state, mapping_index, state.dma_frame[at], length) == NIL:
            _release(state, mapping_index)
            state.dma_device[mapping.dma_device].nr_errors += 1
            return NIL
    return nr_mapped


@kernel
def _release(state: "State", mapping_index: int) -> None:
    """Give back a mapping's bounce buffers, and forget its segments."""
    mapping = state.dma_mapping[mapping_index]
    for index in range(mapping.first_segment, mapping.first_segment + mapping.nr_segments):
        segment = state.dma_segment[index]
        if segment.slot != NIL:
            free_bounce(state, pool_of(state, mapping.dma_device), segment.slot, segment.nr_frames)
    mapping.nr_segments = 0
    mapping.nr_frames = 0


@kernel
def _sync(state: "State", mapping_index: int, towards: int) -> None:
    """Copy between a mapping's buffer and its bounce buffers, ``towards`` the device or from it."""
    mapping = state.dma_mapping[mapping_index]
    if mapping.direction not in (towards, DmaDirection.BIDIRECTIONAL):
        return
    for index in range(mapping.first_segment, mapping.first_segment + mapping.nr_segments):
        segment = state.dma_segment[index]
        if segment.slot != NIL:
            bounce(state, segment.slot, segment.nr_frames, towards)
            _count_copy(state, mapping.dma_device, segment.nr_frames)


@kernel
def dma_sync_sg_for_device(state: "State", mapping_index: int) -> None:
    """Let the device see what the CPU has written to a mapped buffer; nothing if it only writes there."""
    _sync(state, mapping_index, DmaDirection.TO_DEVICE)


@kernel
def dma_sync_sg_for_cpu(state: "State", mapping_index: int) -> None:
    """Let the CPU see what the device has written to a mapped buffer; nothing if it only reads there."""
    _sync(state, mapping_index, DmaDirection.FROM_DEVICE)


@kernel
def dma_unmap_sg(state: "State", mapping_index: int) -> None:
    """End a mapping: what the device has written is in the buffer, and its bounce buffers are free."""
    _sync(state, mapping_index, DmaDirection.FROM_DEVICE)
    _release(state, mapping_index)


@kernel
def bus_frame(state: "State", mapping_index: int, position: int) -> int:
    """Return the frame that the device uses as number ``position`` of a mapping."""
    mapping = state.dma_mapping[mapping_index]
    index = mapping.first_segment
    offset = position
    while offset >= state.dma_segment[index].nr_frames:
        offset -= state.dma_segment[index].nr_frames
        index += 1
    segment = state.dma_segment[index]
    if segment.slot == NIL:
        return segment.bus_pfn + offset
    return slot_pfn(state, segment.slot + offset * SLOTS_PER_PAGE)
