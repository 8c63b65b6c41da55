"""The bus between devices and memory: three ways of sharing it with the CPU, and what each costs the CPU.

    burst         CPU |====| HOLD |DDDDDDDDDDDDDDDD|====|====|   one grant, then the whole block
    stealing      CPU |====| HOLD |DD|====| HOLD |DD|====| ...   one word, then the CPU gets one bus cycle
    transparent   CPU |==D=|==DD|=D==|===D| ...                  only in cycles in which the CPU is busy with itself

A controller asks for the bus (HOLD) and waits for the CPU to let go of it (HLDA): *arbitration*, paid for each
grant. Over ``n`` words of ``w`` cycles, with arbitration ``a``, a CPU's bus cycle ``c``, and ``f`` percent of all
cycles left free by the CPU:

                    time of the transfer     stolen from the CPU     longest that it stands still
    burst           a + n w                  a + n w                 a + n w
    stealing        n (a + w + c)            n (a + w)               a + w
    transparent     n w 100 / f, rounded up  0                       0

So burst is the fastest and stops the CPU dead; stealing takes more of it in all, one word at a time; transparent
takes nothing, and as long as the CPU dictates (of a CPU that
leaves every other cycle free it is quicker than stealing). Everything is in cycles of the bus, and in integers.

Sources:
    [8237A] Intel 8237A High Performance Programmable DMA Controller, data sheet: S1 to S4 are the four states
            of a transfer, block mode holds the bus until the end of the block, single mode releases it after each
            word and so lets the processor run one full machine cycle; memory to memory takes eight states, four
            to read into the temporary register and four to write
    [8086]  Intel 8086 data sheet: a bus cycle is T1 to T4; HLDA answers HOLD at the end of the one under way
            Both are cited from memory: see node/hw/dma_spec.py.

# Differs from Linux: of the hardware beneath it, only the CPU that asked for a transfer is slowed by
# it, and transfers of several devices at once do not slow one another.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

PERCENT: Final = 100
CPU_BUS_CYCLES: Final = (
    4  # T1 to T4: the one bus cycle that the CPU gets between two stolen ones [8086], [8237A]
)


class DmaBus(IntEnum):
    """How a device uses the bus."""

    BURST = 0
    STEALING = 1
    TRANSPARENT = 2


BUS_NAMES: Final = {"burst": DmaBus.BURST, "stealing": DmaBus.STEALING, "transparent": DmaBus.TRANSPARENT}


@kernel
def transfer_cycles(state: "State", device_index: int, nr_words: int) -> int:
    """Return how many bus cycles pass while the device moves a block of ``nr_words`` words."""
    device = state.dma_device[device_index]
    moving = nr_words * device.cycles_per_word
    if device.bus == DmaBus.BURST:
        return device.arbitration_cycles + moving
    if device.bus == DmaBus.STEALING:
        return moving + nr_words * (device.arbitration_cycles + CPU_BUS_CYCLES)
    return (moving * PERCENT + device.cpu_free_percent - 1) // device.cpu_free_percent


@kernel
def stolen_cycles(state: "State", device_index: int, nr_words: int) -> int:
    """Return how many of those cycles the CPU stands still."""
    device = state.dma_device[device_index]
    if device.bus == DmaBus.BURST:
        return device.arbitration_cycles + nr_words * device.cycles_per_word
    if device.bus == DmaBus.STEALING:
        return nr_words * (device.arbitration_cycles + device.cycles_per_word)
    return 0


@kernel
def longest_stop_cycles(state: "State", device_index: int, nr_words: int) -> int:
    """Return for how many cycles the CPU stands still at most before it may use the bus again."""
    device = state.dma_device[device_index]
    if device.bus == DmaBus.TRANSPARENT:
        return 0
    at_once = nr_words if device.bus == DmaBus.BURST else 1
    return device.arbitration_cycles + at_once * device.cycles_per_word
