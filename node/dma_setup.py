"""Devices of a machine as it is built: their records, their bounce buffers, and the buffers of their drivers."""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Request
from node.dma_work import MAPPINGS_PER_REQUEST, get_dma_buffer
from node.hw.dma import DIRECTION_NAMES, ISA_BITS, PCI_BITS, DmaDirection, last_byte, setup_device
from node.hw.dma_spec import ADDRESS_BITS, MAX_SEGMENT_BYTES, MAX_SEGMENTS
from node.phys.bounce import (
    AREA_FRAMES,
    IO_TLB_SEGSIZE,
    NR_BOUNCE_POOLS,
    POOL_BYTES,
    SLOTS_PER_PAGE,
    BouncePool,
    fill_bounce_pool,
)
from node.phys.buddy import MAX_ORDER
from node.phys.page import PageFlag
from node.spec import MachineSpec, WorkSpec
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL, Gfp

if TYPE_CHECKING:
    from node.state import State

DMA: Final = "dma"  # the workload's name
_POOL_BITS: Final = {BouncePool.ISA: ISA_BITS, BouncePool.PCI: PCI_BITS}
_POOL_GFP: Final = {BouncePool.ISA: GFP_KERNEL | Gfp.DMA, BouncePool.PCI: GFP_KERNEL | Gfp.DMA32}
_ZONE_NAMES: Final = {ISA_BITS: "DMA, below 16MiB", PCI_BITS: "DMA32, below 4GiB"}


def device_lengths(spec: MachineSpec) -> dict[str, int]:
    """Return the lengths of the tables that devices need."""
    nr_mappings = max(len(spec.works), 1) * MAPPINGS_PER_REQUEST
    nr_areas = sum(_nr_areas(spec, which) for which in BouncePool)
    return {
        "dma_device": max(len(spec.devices), 1),
        "dma_request": max(len(spec.works), 1),
        "dma_mapping": nr_mappings,
        "dma_segment": nr_mappings * MAX_SEGMENTS if spec.devices else 1,
        "dma_frame": max(sum(_nr_buffer_frames(work) for work in spec.works), 1),
        "bounce_pool": NR_BOUNCE_POOLS,
        "bounce_area": max(nr_areas, 1),
        "bounce_slot": max(nr_areas * IO_TLB_SEGSIZE, 1),
    }


def check_devices(spec: MachineSpec) -> None:
    """Raise ValueError, in one line, for devices or transfers that cannot be."""
    for index, device in enumerate(spec.devices):
        if device.address_bits not in ADDRESS_BITS:
            raise ValueError(f"devices.{index}.address_bits: {device.address_bits} is none of 24, 32, 64")
        if not 1 <= device.max_segments <= MAX_SEGMENTS:
            raise ValueError(
                f"devices.{index}.max_segments: {device.max_segments} is outside 1..{MAX_SEGMENTS}"
            )
        size = device.max_segment_bytes
        if size % PAGE_SIZE or not PAGE_SIZE <= size <= MAX_SEGMENT_BYTES:
            raise ValueError(
                f"devices.{index}.max_segment: {size} bytes is not a whole number of pages, 1 to {AREA_FRAMES}"
            )
    for index, work in enumerate(spec.works):
        if work.workload != DMA:
            continue
        if not 0 <= work.device < len(spec.devices):
            raise ValueError(f"processes.{index}.device: {work.device}, but there are {len(spec.devices)}")
        if work.memory_bytes < PAGE_SIZE or work.memory_bytes % PAGE_SIZE:
            raise ValueError(
                f"processes.{index}.memory: {work.memory_bytes} bytes is not a whole number of pages, at least 1"
            )
        if work.coherent and work.memory_bytes > PAGE_SIZE << MAX_ORDER:
            raise ValueError(
                f"processes.{index}.memory: {work.memory_bytes} bytes is more than one block,"
                f" which a coherent buffer must be: {PAGE_SIZE << MAX_ORDER}"
            )


def setup_devices(state: "State", spec: MachineSpec) -> None:
    """Fill in the devices' records, and take the bounce buffers that they may need.

    Raises ValueError, in one line, for a device that reaches no memory of the machine, or too little for
    its bounce buffers.
    """
    for index, device in enumerate(spec.devices):
        setup_device(state, index, device)
        _check_zone(state, index, device.address_bits)
    first_slot = 0
    for which in BouncePool:
        nr_areas = _nr_areas(spec, which)
        state.bounce_pool[which].first_slot = first_slot
        first_slot += nr_areas * IO_TLB_SEGSIZE
        if not nr_areas:
            continue
        state.request[Request.A0] = (last_byte(_POOL_BITS[which]) + 1) >> PAGE_SHIFT
        got = fill_bounce_pool(state, which, nr_areas, _POOL_GFP[which])
        if got < nr_areas:
            raise ValueError(
                f"devices: zone {_ZONE_NAMES[_POOL_BITS[which]]}, has no room for {nr_areas} bounce buffers of"
                f" {IO_TLB_SEGSIZE // SLOTS_PER_PAGE} pages, only for {got}"
            )
    for index in range(len(state.dma_mapping)):
        state.dma_mapping[index].first_segment = index * MAX_SEGMENTS if spec.devices else 0


def start_transfers(state: "State", index: int, work: WorkSpec, first_frame: int) -> int:
    """Give process ``index`` its driver's buffers, at ``first_frame`` of the list; return where the next may begin.

    Raises ValueError, in one line, if there is no memory for them, or none that the device reaches.
    """
    request = state.dma_request[index]
    request.dma_device = work.device
    request.direction = DIRECTION_NAMES[work.direction]
    request.first_frame = first_frame
    request.nr_frames = work.memory_bytes >> PAGE_SHIFT
    order = (request.nr_frames - 1).bit_length() if work.coherent else NIL
    behind = first_frame + _nr_buffer_frames(work)
    for first in range(first_frame, behind, request.nr_frames):
        if get_dma_buffer(state, index, first, order) == NIL:
            bits = state.dma_device[work.device].address_bits
            where = f" in reach of {bits} address bits" if work.coherent else ""
            raise ValueError(f"processes.{index}.memory: no {work.memory_bytes} bytes{where} for the buffer")
    return behind


def _nr_areas(spec: MachineSpec, which: BouncePool) -> int:
    """Return how many areas a pool shall have: none if no device needs it."""
    bits = _POOL_BITS[which]
    out_of_reach = spec.memory_bytes > last_byte(bits) + 1
    if not out_of_reach or all(device.address_bits != bits for device in spec.devices):
        return 0
    return POOL_BYTES[which] // (AREA_FRAMES * PAGE_SIZE)


def _nr_buffer_frames(work: WorkSpec) -> int:
    if work.workload != DMA:
        return 0
    nr_buffers = 2 if DIRECTION_NAMES[work.direction] == DmaDirection.MEMORY_TO_MEMORY else 1
    return nr_buffers * (work.memory_bytes >> PAGE_SHIFT)


def _check_zone(state: "State", index: int, address_bits: int) -> None:
    reach = min((last_byte(address_bits) >> PAGE_SHIFT) + 1, len(state.page))
    if np.all(state.page["page_flags"][:reach] & PageFlag.RESERVED):
        raise ValueError(
            f"devices.{index}.address_bits: {address_bits}, but the machine has no frames"
            f" in zone {_ZONE_NAMES[address_bits]}"
        )


DEVICE_COUNTERS: Final = (
    "transfers",
    "bytes",
    "segments",
    "bounced_bytes",
    "errors",
    "bus_cycles",
    "stolen_cycles",
    "longest_stop",
    "wait_ps",
)
_FIELDS: Final = {name: f"nr_{name}" for name in ("transfers", "bytes", "segments", "errors")}


def device_counters(state: "State", spec: MachineSpec) -> dict[str, int]:
    """Return what devices and bounce buffers count: of each device ``dma.NAME...``, and of all ``dma_...``.

    Nothing for a machine without devices.
    """
    if not spec.devices:
        return {}
    values = {}
    for name in DEVICE_COUNTERS:
        column = state.dma_device[_FIELDS.get(name, name)]
        values[f"dma_{name}"] = int(column.max() if name == "longest_stop" else column.sum())
        for index, device in enumerate(spec.devices):
            values[f"dma.{device.name}.{name}"] = int(column[index])
    pools = state.bounce_pool
    return values | {
        "swiotlb_slots": int(pools["nr_slots"].sum()),
        "swiotlb_used": int(pools["nr_used"].sum()),
        "swiotlb_used_hiwater": int(pools["max_used"].sum()),
        "swiotlb_full": int(pools["nr_full"].sum()),
    }
