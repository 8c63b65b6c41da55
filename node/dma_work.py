"""The ``dma`` workload: a process whose driver lets a device transfer a buffer, again and again.

    CPU      map | own work, slowed by stolen cycles   | waits      | interrupt, unmap
    device       | (queued) --- moves the segments ------------->  done

An operation moves the whole buffer once, in as many transfers as the device's segments make necessary. While the
device works, so does the program: ``think`` of its own, and as long again as the device stops the CPU. What is
left of the transfer then is waiting (stall). So an operation takes the longer of the two:

    max(queue + transfer, think + stolen) + copies to and from bounce buffers + system call + interrupt

The buffer is the driver's own: frames of the kernel, one by one from wherever they come (``streaming``), or one block
within the device's reach (``coherent``). Memory to memory has a second one to copy to. Before each operation the
program writes a new word to every page that the device is going to read.

A transfer that cannot be mapped (no bounce buffers left) ends the operation; it counts as done, and as an error.

# Differs from Linux: the process's own pages are not pinned and transferred (get_user_pages), and copying between
# them and the driver's buffer is part of ``think``; a driver outlives its process, and keeps its buffer.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.content import write_word
from node.counters import Current
from node.hw.dma import DmaDirection, device_copies, device_reads, device_writes, move_block, queue_transfer
from node.joints import alloc_frames, device_interrupt, system_call
from node.phys.bounce import take_for_device
from node.phys.dma_map import (
    bus_frame,
    dma_alloc_coherent,
    dma_map_sg,
    dma_unmap_sg,
    frames_that_fit,
)
from shared.constants import NIL
from shared.gfp_flags import GFP_KERNEL
from shared.jit import entry, kernel
from shared.rng import splitmix64_word

if TYPE_CHECKING:
    from node.state import State

DMA_REQUEST = np.dtype(
    [
        ("done_ps", np.int64),  # of the transfer under way
        ("first_frame", np.int32),  # of its buffer in state.dma_frame
        ("nr_frames", np.int32),  # of one buffer; memory to memory has a second behind it
        ("position", np.int32),  # frames of this operation that were transferred
        ("stage", np.int32),  # RequestStage
        ("dma_device", np.int32),
        ("direction", np.int32),  # DmaDirection
    ],
    align=True,
)
MAPPINGS_PER_REQUEST: Final = 2  # of the source, or the one buffer; of where memory is copied to


class RequestStage(IntEnum):
    """Where a driver's request stands."""

    IDLE = 0
    UNDER_WAY = 1  # the device has it


WORD_BITS: Final = 31
WORD_MASK: Final = (1 << WORD_BITS) - 1


# --- the buffer -------------------------------------------------------------------------------------------


@entry
def get_dma_buffer(state: "State", index: int, first: int, order: int) -> int:
    """Fill ``dma_frame`` from ``first`` on with frames for one buffer of a request; return 0, or NIL without memory.

    ``order``: of a coherent block, which must hold the buffer; NIL for single frames.
    """
    request = state.dma_request[index]
    if order != NIL:
        pfn = dma_alloc_coherent(state, request.dma_device, order)
        if pfn == NIL:
            return NIL
        for offset in range(request.nr_frames):
            state.dma_frame[first + offset] = pfn + offset
        return 0
    for offset in range(request.nr_frames):
        pfn = alloc_frames(state, 0, GFP_KERNEL)
        if pfn == NIL:
            return NIL
        take_for_device(state, pfn, 1)
        state.dma_device[request.dma_device].nr_held += 1
        state.dma_frame[first + offset] = pfn
    return 0


# --- one transfer -----------------------------------------------------------------------------------------


@kernel
def _device_reads_it(direction: int) -> int:
    return 0 if direction == DmaDirection.FROM_DEVICE else 1


@kernel
def _write_buffer(state: "State", index: int) -> None:
    """Let the program put something new into every page that the device will read."""
    request = state.dma_request[index]
    work = state.work[index]
    word = splitmix64_word(work.seed, work.counter)
    for offset in range(request.nr_frames):
        write_word(state, state.dma_frame[request.first_frame + offset], (word ^ offset) & WORD_MASK)


@kernel
def _prepare(state: "State", index: int, which: int, direction: int) -> int:
    """Set up one of a request's mappings, and return its index."""
    mapping_index = index * MAPPINGS_PER_REQUEST + which
    mapping = state.dma_mapping[mapping_index]
    mapping.dma_device = state.dma_request[index].dma_device
    mapping.direction = direction
    return mapping_index


@kernel
def _map(state: "State", index: int) -> int:
    """Map as much of the rest of the buffer as the device takes at once; return how many frames, or NIL."""
    request = state.dma_request[index]
    first = request.first_frame + request.position
    left = request.nr_frames - request.position
    if request.direction != DmaDirection.MEMORY_TO_MEMORY:
        return dma_map_sg(state, _prepare(state, index, 0, request.direction), first, left)
    second = first + request.nr_frames
    both = min(
        frames_that_fit(state, request.dma_device, first, left),
        frames_that_fit(state, request.dma_device, second, left),
    )
    source = _prepare(state, index, 0, DmaDirection.TO_DEVICE)
    if dma_map_sg(state, source, first, both) == NIL:
        return NIL
    target = _prepare(state, index, 1, DmaDirection.FROM_DEVICE)
    if dma_map_sg(state, target, second, both) == NIL:
        dma_unmap_sg(state, source)
        return NIL
    return both


@kernel
def _start(state: "State", index: int) -> None:
    """Map, issue the transfer, and do the program's own work beside it."""
    request = state.dma_request[index]
    work = state.work[index]
    system_call(state, 1)
    if request.position == 0 and _device_reads_it(request.direction):
        _write_buffer(state, index)
    if _map(state, index) == NIL:
        request.position = 0
        work.counter += 1
        return
    device = state.dma_device[request.dma_device]
    stolen_before = device.stolen_cycles
    nr_cycles = 0
    mapping = state.dma_mapping[index * MAPPINGS_PER_REQUEST]
    for at in range(mapping.first_segment, mapping.first_segment + mapping.nr_segments):
        nr_cycles += move_block(state, request.dma_device, state.dma_segment[at].nr_frames, request.direction)
    request.done_ps = queue_transfer(state, request.dma_device, nr_cycles)
    request.stage = RequestStage.UNDER_WAY
    stolen_ps = (device.stolen_cycles - stolen_before) * device.cycle_ps
    state.current[Current.CLOCK_PS] += work.think_ps + stolen_ps


@kernel
def _move(state: "State", index: int) -> None:
    """Let the device do to memory what the transfer says."""
    request = state.dma_request[index]
    source = index * MAPPINGS_PER_REQUEST
    for position in range(state.dma_mapping[source].nr_frames):
        pfn = bus_frame(state, source, position)
        if request.direction == DmaDirection.MEMORY_TO_MEMORY:
            device_copies(state, request.dma_device, bus_frame(state, source + 1, position), pfn)
            continue
        if _device_reads_it(request.direction):
            device_reads(state, request.dma_device, pfn)
        if request.direction != DmaDirection.TO_DEVICE:
            device_writes(state, request.dma_device, pfn)


@kernel
def _finish(state: "State", index: int) -> None:
    """Wait for the transfer, take the device's interrupt, and end the mapping."""
    request = state.dma_request[index]
    waits_ps = request.done_ps - state.current[Current.CLOCK_PS]
    if waits_ps > 0:
        state.current[Current.CLOCK_PS] += waits_ps
        state.current[Current.STALL_PS] += waits_ps
    device_interrupt(state, 1)
    _move(state, index)
    source = index * MAPPINGS_PER_REQUEST
    request.position += state.dma_mapping[source].nr_frames
    dma_unmap_sg(state, source)
    if request.direction == DmaDirection.MEMORY_TO_MEMORY:
        dma_unmap_sg(state, source + 1)
    request.stage = RequestStage.IDLE
    if request.position == request.nr_frames:
        request.position = 0
        state.work[index].counter += 1


@entry
def dma_step(state: "State", index: int) -> int:
    """Start the next transfer of a ``dma`` workload, or finish the one under way; return 0."""
    if state.dma_request[index].stage == RequestStage.IDLE:
        _start(state, index)
    else:
        _finish(state, index)
    return 0
