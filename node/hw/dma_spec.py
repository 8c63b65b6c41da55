"""What a scenario may say of a device that uses memory itself: plain numbers, with their defaults' sources.

Apart from node/hw/dma.py, so that reading a scenario needs no compiler.

Sources:
    [8237A] Intel 8237A High Performance Programmable DMA Controller, data sheet: 5 MHz (8237A-5), 8-bit words, the four
            states S1 to S4 of a transfer
    [8086]  Intel 8086 data sheet: a bus cycle is T1 to T4; HLDA answers HOLD at the end of the one under way
            Both data sheets are cited from memory; their numbers have not been compared with the print.
    [dma]   Linux 6.1, include/linux/dma-mapping.h (dma_get_max_seg_size: 64 KiB unless a driver says more)
    [sg]    Linux 6.1, include/linux/scatterlist.h (SG_CHUNK_SIZE: 128 entries of a list)
    [guess] no source found
"""

from dataclasses import dataclass
from typing import Final

from shared.constants import KIB

ADDRESS_BITS: Final = (24, 32, 64)
BUSES: Final = ("burst", "stealing", "transparent")
DIRECTIONS: Final = ("to_device", "from_device", "bidirectional", "memory_to_memory")
MAX_SEGMENTS: Final = 128  # [sg]
MAX_SEGMENT_BYTES: Final = 256 * KIB  # the largest piece of bounce buffers: node/phys/bounce.py


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device: what it reaches, and how it uses the bus (node/hw/dma_bus.py)."""

    name: str
    address_bits: int = 32
    bus: str = "burst"
    clock_mhz: int = 5  # of the bus [8237A]
    word_bytes: int = 1  # [8237A]
    cycles_per_word: int = 4  # [8237A]
    # HLDA comes when the bus cycle under way is over: at the worst the four clocks of one that has just begun [8086].
    arbitration_cycles: int = 4
    cpu_free_percent: int = 25  # of bus cycles that the CPU leaves free [guess]
    max_segments: int = MAX_SEGMENTS
    max_segment_bytes: int = 64 * KIB  # [dma]
