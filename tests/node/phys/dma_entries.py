"""What Python calls in tests of memory for devices."""

from node.hw.dma import device_reads, device_writes, move_block, queue_transfer
from node.hw.dma_bus import longest_stop_cycles, stolen_cycles, transfer_cycles
from node.phys.bounce import alloc_bounce, free_bounce
from node.phys.dma_map import (
    bus_frame,
    dma_alloc_coherent,
    dma_free_coherent,
    dma_map_sg,
    dma_sync_sg_for_cpu,
    dma_sync_sg_for_device,
    dma_unmap_sg,
)
from node.state import State
from shared.jit import entry


@entry
def do_transfer_cycles(state: State, device: int, nr_words: int) -> int:
    return transfer_cycles(state, device, nr_words)


@entry
def do_stolen_cycles(state: State, device: int, nr_words: int) -> int:
    return stolen_cycles(state, device, nr_words)


@entry
def do_longest_stop(state: State, device: int, nr_words: int) -> int:
    return longest_stop_cycles(state, device, nr_words)


@entry
def do_move_block(state: State, device: int, nr_frames: int, direction: int) -> int:
    return move_block(state, device, nr_frames, direction)


@entry
def do_queue_transfer(state: State, device: int, nr_cycles: int) -> int:
    return queue_transfer(state, device, nr_cycles)


@entry
def do_device_reads(state: State, device: int, pfn: int) -> None:
    device_reads(state, device, pfn)


@entry
def do_device_writes(state: State, device: int, pfn: int) -> None:
    device_writes(state, device, pfn)


@entry
def do_alloc_bounce(state: State, which: int, pfn: int, nr_frames: int) -> int:
    return alloc_bounce(state, which, pfn, nr_frames)


@entry
def do_free_bounce(state: State, which: int, slot: int, nr_frames: int) -> None:
    free_bounce(state, which, slot, nr_frames)


@entry
def do_alloc_coherent(state: State, device: int, order: int) -> int:
    return dma_alloc_coherent(state, device, order)


@entry
def do_free_coherent(state: State, device: int, pfn: int, order: int) -> None:
    dma_free_coherent(state, device, pfn, order)


@entry
def do_map(state: State, mapping: int, first: int, nr_frames: int) -> int:
    return dma_map_sg(state, mapping, first, nr_frames)


@entry
def do_unmap(state: State, mapping: int) -> None:
    dma_unmap_sg(state, mapping)


@entry
def do_sync_for_device(state: State, mapping: int) -> None:
    dma_sync_sg_for_device(state, mapping)


@entry
def do_sync_for_cpu(state: State, mapping: int) -> None:
    dma_sync_sg_for_cpu(state, mapping)


@entry
def do_bus_frame(state: State, mapping: int, position: int) -> int:
    return bus_frame(state, mapping, position)
