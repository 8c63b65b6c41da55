"""A device that reads and writes memory itself: what it can reach, and its queue of transfers.

    issued                 device free                          done
       |------- wait -----------|--- block | block | block -------|--> interrupt
                                 each segment of memory is a block on the bus (node/hw/dma_bus.py)

A device has an address width: 24 bits of an ISA card, 32 of a PCI card, 64 of what is built today. It knows
nothing of page tables or TLBs: what it is given are physical addresses, and ``node/phys/dma_map.py`` sees to it
that they are within reach. One transfer is served at a time, in the order of issue. A transfer from memory to
memory reads each word into the controller and writes it again: two bus transfers a word, as channels 0 and 1 of
the ISA controller do.

What a device reads is folded into a checksum, so that a test can say what it has seen; what it writes are pages
that are generated, never equal to others.

Sources: Intel 8237A data sheet (memory-to-memory transfers); Linux 6.1, include/linux/dma-direction.h; the figures of
a device are in node/hw/dma_spec.py.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.content import PATTERN_DEVICE, copy_content, generated, set_content
from node.counters import Current, Knob
from node.hw.dma_bus import BUS_NAMES, longest_stop_cycles, stolen_cycles, transfer_cycles
from shared.constants import INT64_MAX, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel
from shared.rng import mix64

if TYPE_CHECKING:
    from node.hw.dma_spec import DeviceSpec
    from node.state import State

DMA_DEVICE = np.dtype(
    [
        ("last_byte", np.int64),  # highest physical address that it can name
        ("free_ps", np.int64),  # when its last transfer is done
        ("cycle_ps", np.int64),  # of the bus
        ("nr_transfers", np.int64),
        ("nr_bytes", np.int64),  # asked for; memory to memory counts them once
        ("nr_segments", np.int64),
        ("bounced_bytes", np.int64),  # copied between buffers and bounce buffers, either way
        ("nr_errors", np.int64),  # mappings that failed, and coherent allocations
        ("bus_cycles", np.int64),  # for which transfers lasted
        ("stolen_cycles", np.int64),  # of them, those for which the CPU stood still
        ("longest_stop", np.int64),  # for how many cycles it did at most
        ("wait_ps", np.int64),  # of transfers in the queue
        ("checksum", np.int64),  # of all pages that it has read, in order
        ("nr_written", np.int64),  # pages that it has written
        ("nr_held", np.int64),  # frames that its driver holds
        ("address_bits", np.int32),
        ("bus", np.int32),  # DmaBus
        ("word_bytes", np.int32),
        ("cycles_per_word", np.int32),
        ("arbitration_cycles", np.int32),
        ("cpu_free_percent", np.int32),
        ("max_segments", np.int32),
        ("max_segment_frames", np.int32),
    ],
    align=True,
)

PS_PER_CYCLE_AT_1_MHZ: Final = 1_000_000
WIDEST: Final = 64
ISA_BITS: Final = 24  # and the width of ZONE_DMA (zone_dma_bits, kernel/dma/direct.c)
PCI_BITS: Final = 32
MEMORY_PASSES: Final = 2  # of a word that is read and written


class DmaDirection(IntEnum):
    """Which way data goes; the first three by Linux's values (enum dma_data_direction)."""

    BIDIRECTIONAL = 0
    TO_DEVICE = 1
    FROM_DEVICE = 2
    MEMORY_TO_MEMORY = 4  # Linux has that as a kind of channel (DMA_MEMCPY), not as a direction


DIRECTION_NAMES: Final = {direction.name.lower(): direction for direction in DmaDirection}


def last_byte(address_bits: int) -> int:
    """Return the highest address of so many bits, as far as an int64 goes (DMA_BIT_MASK)."""
    return INT64_MAX if address_bits == WIDEST else (1 << address_bits) - 1


def setup_device(state: "State", index: int, spec: "DeviceSpec") -> None:
    """Make record ``index`` the device of ``spec``, idle."""
    device = state.dma_device[index]
    device.address_bits = spec.address_bits
    device.last_byte = last_byte(spec.address_bits)
    device.bus = BUS_NAMES[spec.bus]
    device.cycle_ps = PS_PER_CYCLE_AT_1_MHZ // spec.clock_mhz
    device.word_bytes = spec.word_bytes
    device.cycles_per_word = spec.cycles_per_word
    device.arbitration_cycles = spec.arbitration_cycles
    device.cpu_free_percent = spec.cpu_free_percent
    device.max_segments = spec.max_segments
    device.max_segment_frames = spec.max_segment_bytes >> PAGE_SHIFT


@kernel
def reaches(state: "State", device_index: int, pfn: int, nr_frames: int) -> int:
    """Return whether the device can name all bytes of frames [pfn, pfn + nr_frames)."""
    last = ((pfn + nr_frames) << PAGE_SHIFT) - 1
    return 1 if last <= state.dma_device[device_index].last_byte else 0


@kernel
def passes_of(direction: int) -> int:
    """Return how often each word of a transfer is on the bus."""
    both = direction in (DmaDirection.BIDIRECTIONAL, DmaDirection.MEMORY_TO_MEMORY)
    return MEMORY_PASSES if both else 1


@kernel
def move_block(state: "State", device_index: int, nr_frames: int, direction: int) -> int:
    """Count one segment of a transfer; return the bus cycles that it lasts.

    The cycles stolen from the CPU are added to the device's ``stolen_cycles``.
    """
    device = state.dma_device[device_index]
    nr_bytes = nr_frames * PAGE_SIZE
    nr_words = (nr_bytes + device.word_bytes - 1) // device.word_bytes * passes_of(direction)
    device.nr_segments += 1
    device.nr_bytes += nr_bytes
    device.stolen_cycles += stolen_cycles(state, device_index, nr_words)
    device.longest_stop = max(device.longest_stop, longest_stop_cycles(state, device_index, nr_words))
    return transfer_cycles(state, device_index, nr_words)


@kernel
def queue_transfer(state: "State", device_index: int, nr_cycles: int) -> int:
    """Issue a transfer that keeps the bus for ``nr_cycles`` at the current clock; return when it is done, in ps.

    Nobody waits here: the caller does, or not.
    """
    device = state.dma_device[device_index]
    now = state.current[Current.CLOCK_PS]
    start_ps = max(now, device.free_ps)
    device.wait_ps += start_ps - now
    device.free_ps = start_ps + nr_cycles * device.cycle_ps
    device.bus_cycles += nr_cycles
    device.nr_transfers += 1
    return device.free_ps


@kernel
def device_reads(state: "State", device_index: int, pfn: int) -> None:
    """Let the device read a frame."""
    device = state.dma_device[device_index]
    device.checksum = mix64(device.checksum ^ state.page[pfn].content)


@kernel
def device_writes(state: "State", device_index: int, pfn: int) -> None:
    """Let the device fill a frame with the next page of what it has to say."""
    device = state.dma_device[device_index]
    device.nr_written += 1
    seed = state.knob[Knob.CONTENT_KEY] ^ device_index
    set_content(state, pfn, generated(PATTERN_DEVICE, seed, device.nr_written))


@kernel
def device_copies(state: "State", device_index: int, to_pfn: int, from_pfn: int) -> None:
    """Let the device copy a frame over another."""
    device_reads(state, device_index, from_pfn)
    state.dma_device[device_index].nr_written += 1
    copy_content(state, to_pfn, from_pfn)
