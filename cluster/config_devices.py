"""What a scenario may say of a machine's devices that use memory themselves, and of the transfers that they make.

What is absent is as in ``node.spec.DeviceSpec``, where the figures have their sources.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from cluster.config_values import (
    MAX_CPUS,
    MAX_INT,
    MAX_MEMORY_BYTES,
    Bytes,
    Count,
    Name,
    Strict,
    in_pages,
)
from node.spec import DeviceSpec
from shared.constants import KIB, NS_PER_S, PAGE_SIZE

DEFAULT: Final = DeviceSpec(name="default")
MAX_SEGMENT_BYTES: Final = 256 * KIB  # what a row of bounce slots holds: node/phys/bounce.py


class Device(Strict):
    """A device that reads and writes memory without the CPU."""

    name: Name
    address_bits: Literal[24, 32, 64] = 32
    """Width of the physical addresses that it can name: 24 of an ISA card."""
    bus: Literal["burst", "stealing", "transparent"] = "burst"
    """burst: the bus for a whole block; stealing: for one word at a time; transparent: in cycles left free."""
    clock_mhz: int = Field(DEFAULT.clock_mhz, ge=1, le=10_000)
    """Of the bus."""
    word_bytes: Literal[1, 2, 4, 8] = 1
    """Bytes that the bus carries at once."""
    cycles_per_word: int = Field(DEFAULT.cycles_per_word, ge=1, le=MAX_INT)
    arbitration_cycles: int = Field(DEFAULT.arbitration_cycles, ge=0, le=MAX_INT)
    """From the request for the bus until the CPU lets go of it."""
    cpu_free_percent: int = Field(DEFAULT.cpu_free_percent, ge=1, le=100)
    """Share of the bus cycles in which the CPU does not need the bus."""
    max_segments: int = Field(DEFAULT.max_segments, ge=1, le=DEFAULT.max_segments)
    """Pieces of memory that one transfer may consist of."""
    max_segment: Annotated[Bytes, Field(ge=PAGE_SIZE, le=MAX_SEGMENT_BYTES), AfterValidator(in_pages)] = (
        DEFAULT.max_segment_bytes
    )

    def spec(self) -> dict[str, Any]:
        """Return the fields of its ``DeviceSpec``."""
        fields = self.model_dump()
        fields["max_segment_bytes"] = fields.pop("max_segment")
        return fields


class Transfers(Strict):
    """A process whose driver lets a device transfer a buffer, again and again."""

    workload: Literal["dma"]
    device: Name
    """One of the machine's devices, by its name."""
    memory: Annotated[Bytes, Field(ge=PAGE_SIZE, le=MAX_MEMORY_BYTES), AfterValidator(in_pages)]
    """Size of the buffer, which each operation transfers once; memory_to_memory has a second one."""
    operations: Count
    direction: Literal["to_device", "from_device", "bidirectional", "memory_to_memory"] = "from_device"
    buffer: Literal["streaming", "coherent"] = "streaming"
    """streaming: any frames, mapped for each transfer; coherent: one block within the device's reach."""
    cpu: int = Field(0, ge=0, lt=MAX_CPUS)
    think_ns: int = Field(0, ge=0, le=NS_PER_S)
    """Time of its own work while the device is at work."""


def check_transfers(devices: tuple[Device, ...], processes: tuple[Any, ...]) -> None:
    """Raise ValueError, in one line, for two devices of one name, or transfers of a device that is not there."""
    names = [device.name for device in devices]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"devices: {name!r} stands for more than one device")
    for index, process in enumerate(processes):
        if isinstance(process, Transfers) and process.device not in names:
            there = f"there are {', '.join(names)}" if names else "the machine has none"
            raise ValueError(f"processes.{index}.device: no device {process.device!r}; {there}")
