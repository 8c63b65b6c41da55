"""What a scenario may say: one pydantic model for each mapping of the YAML file.

Unknown keys are refused, nothing is coerced (``cpus: "2"`` is an error), and sizes, times and counts are
text with a unit (``512MiB``, ``20ms``, ``1M``) that becomes an integer of bytes, nanoseconds or operations
here (cluster/config_values.py), so that nothing after these files knows a unit. Kernel knobs carry Linux's names,
units and limits. The hardware's keys are in cluster/config_hardware.py.

``cluster/scenario_file.py`` reads the file and words the errors; ``cluster/plan.py`` turns a scenario into
the members of a fleet.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from cluster.config_allocations import Allocations
from cluster.config_computer import Computer, Ksm
from cluster.config_devices import Device, Transfers, check_transfers
from cluster.config_values import (
    MAX_COUNT,
    MAX_CPUS,
    MAX_DURATION_NS,
    MAX_ENTRIES,
    MAX_INT,
    MAX_MEMORY_BYTES,
    MAX_SEED,
    MIN_EPOCH_NS,
    THOUSANDTHS,
    Bytes,
    Count,
    Duration,
    Era,
    Name,
    Skew,
    Strict,
    in_pages,
    several,
)
from shared.constants import NS_PER_S, PAGE_SIZE
from shared.units import format_duration


class Workload(Strict):
    """A process that touches its memory in a pattern."""

    workload: Literal["sequential", "uniform", "zipf", "syscall"]
    """syscall: page after page like sequential, and before each access a system call that does nothing."""
    memory: Annotated[Bytes, Field(ge=PAGE_SIZE, le=MAX_MEMORY_BYTES), AfterValidator(in_pages)]
    operations: Count
    write_percent: int = Field(50, ge=0, le=100)
    cpu: int = Field(0, ge=0, lt=MAX_CPUS)
    skew: Skew = THOUSANDTHS
    """Exponent of zipf, to three decimals."""
    mergeable: bool = False
    """madvise(MADV_MERGEABLE) over its memory."""
    think_ns: int = Field(0, ge=0, le=NS_PER_S)
    """Time between two operations."""


class Trace(Strict):
    """A process that replays the memory accesses of a recorded program."""

    trace: str = Field(min_length=1, max_length=4096)
    """A name in scenarios/data/traces, or a path from the scenario's folder."""
    window: Literal[0, 1, "both"] = 1
    """0: the program's start; 1: its steady state; both: one after the other."""
    loops: Annotated[Count, Field(le=MAX_INT)] = 1
    """How often the window is replayed; 0: without end."""
    cpu: int = Field(0, ge=0, lt=MAX_CPUS)
    huge_pages: Literal["none", "2M"] = "none"
    """2M: its memory is 2 MiB pages, mapped from the start."""


class Program(Strict):
    """A process described by a workload program, a text file beside the scenario."""

    program: str = Field(min_length=1, max_length=4096)


def _process_kind(value: Any) -> str:
    for kind, model in (("program", Program), ("trace", Trace), ("allocations", Allocations)):
        if isinstance(value, model) or (isinstance(value, dict) and kind in value):
            return kind
    is_dma = isinstance(value, Transfers) or (isinstance(value, dict) and value.get("workload") == "dma")
    return "dma" if is_dma else "workload"


Process = Annotated[
    Annotated[Workload, Tag("workload")]
    | Annotated[Transfers, Tag("dma")]
    | Annotated[Trace, Tag("trace")]
    | Annotated[Allocations, Tag("allocations")]
    | Annotated[Program, Tag("program")],
    Discriminator(_process_kind),
]


class MachineBody(Computer):
    """A full simulated machine, wherever it runs."""

    devices: several(Device) = ()  # type: ignore[valid-type]
    """Devices that use memory themselves, for processes of the workload dma."""
    processes: several(Process) = ()  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _processes_run_on_its_cpus(self) -> Self:
        check_transfers(self.devices, self.processes)
        for index, process in enumerate(self.processes):
            if isinstance(process, Workload | Transfers | Trace) and process.cpu >= self.cpus:
                raise ValueError(f"processes.{index}.cpu: {process.cpu}, but there are {self.cpus} CPUs")
            if isinstance(process, Allocations) and max(process.cpus) >= self.cpus:
                raise ValueError(
                    f"processes.{index}.cpus: {max(process.cpus)}, but there are {self.cpus} CPUs"
                )
        return self


class Machine(MachineBody):
    """``count`` plain machines without a host."""

    name: Name
    count: int = Field(1, ge=1, le=MAX_COUNT)


class ImageGuests(Strict):
    """``count`` guests that replay a recorded memory image."""

    name: Name | None = None
    image: str = Field(min_length=1, max_length=4096)
    """A name in scenarios/data, or a path from the scenario's folder."""
    count: int = Field(1, ge=1, le=MAX_COUNT)
    start_offset: Annotated[Duration, Field(ge=0, le=MAX_DURATION_NS)] = 0
    variant_seed: int = Field(0, ge=0, le=MAX_SEED)
    """0: the first of them is the recording itself; every other one has anonymous pages of its own."""
    presence: Literal["thp", "nonzero"] = "thp"
    """Whether pages that stay zero, present by the recording's 2 MiB grain, count."""
    replay: Literal["rate", "once"] = "rate"


class MachineGuests(Strict):
    """``count`` guests that are full simulated machines."""

    name: Name | None = None
    machine: MachineBody
    count: int = Field(1, ge=1, le=MAX_COUNT)
    start_offset: Annotated[Duration, Field(ge=0, le=MAX_DURATION_NS)] = 0


def _guest_kind(value: Any) -> str:
    full = isinstance(value, MachineGuests) or (isinstance(value, dict) and "machine" in value)
    return "machine" if full else "image"


Guests = Annotated[
    Annotated[ImageGuests, Tag("image")] | Annotated[MachineGuests, Tag("machine")],
    Discriminator(_guest_kind),
]


class Host(Computer):
    """A machine that runs guests."""

    name: Name
    ksm: Ksm = Ksm()
    guests: Annotated[tuple[Guests, ...], Field(strict=False, min_length=1, max_length=MAX_ENTRIES)]

    @property
    def runs_guests(self) -> bool:
        """Whether it is a host."""
        return True


class Scenario(Strict):
    """One experiment: hosts with their guests, plain machines, and how long they run."""

    name: Name
    description: str = ""
    seed: int = Field(1, ge=0, le=MAX_SEED)
    duration: Annotated[Duration, Field(ge=MIN_EPOCH_NS, le=MAX_DURATION_NS)]
    epoch: Annotated[Duration, Field(ge=MIN_EPOCH_NS, le=MAX_DURATION_NS)] = 100_000_000
    """Simulated time between two exchanges of guests and host."""
    checkpoint_every: Annotated[Duration, Field(ge=MIN_EPOCH_NS, le=MAX_DURATION_NS)] = 5 * NS_PER_S
    metrics_every: Annotated[Duration, Field(ge=MIN_EPOCH_NS, le=MAX_DURATION_NS)] = NS_PER_S
    machines_per_actor: int = Field(4, ge=1, le=MAX_COUNT)
    check_invariants: bool = False
    era: Era = "6.1"
    """Linux 6.1, or the older mechanisms that courses teach."""
    hosts: several(Host) = ()  # type: ignore[valid-type]
    machines: several(Machine) = ()  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.hosts and not self.machines:
            raise ValueError("hosts, machines: there is neither a host nor a machine to run")
        for key in ("checkpoint_every", "metrics_every"):
            if getattr(self, key) % self.epoch:
                every, epoch = format_duration(getattr(self, key)), format_duration(self.epoch)
                raise ValueError(f"{key}: {every} is not a multiple of the epoch, {epoch}")
        names = [one.name for one in (*self.hosts, *self.machines)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"name: {name!r} stands for more than one host or machine")
        return self
