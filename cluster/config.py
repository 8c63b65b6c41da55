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

from cluster.config_hardware import Hardware
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
    Bandwidth,
    Bytes,
    Count,
    Duration,
    Era,
    KsmModel,
    Memory,
    Name,
    Skew,
    Strict,
    Switch,
    in_pages,
    several,
)
from node.spec import GuestRam, MachineSpec, SwapSpec, check_pageable_tables
from shared.constants import NS_PER_S, PAGE_SIZE
from shared.units import format_duration


class Vm(Strict):
    """Knobs of /proc/sys/vm."""

    swappiness: int = Field(60, ge=0, le=200)
    min_free_kbytes: int | None = Field(None, ge=1, le=MAX_INT)
    """null: Linux's formula over the memory."""
    watermark_scale_factor: int = Field(10, ge=1, le=3000)
    page_cluster: int = Field(3, ge=0, le=31)
    """Pages of a swap readahead, as a power of two."""
    pageable_tables: bool = False
    """Second-level page tables of 32bit paging are swapped out with the last page that they map. Not Linux's."""


class Ksm(Strict):
    """Files of /sys/kernel/mm/ksm, and which kernel's KSM this is."""

    run: int = Field(1, ge=0, le=2)
    model: KsmModel = "6.1"
    pages_to_scan: int = Field(100, ge=1, le=MAX_INT)
    sleep_millisecs: int = Field(20, ge=1, le=MAX_INT)
    max_page_sharing: int = Field(256, ge=2, le=MAX_INT)
    use_zero_pages: Switch = 0
    merge_across_nodes: Switch = 1
    stable_node_chains_prune_millisecs: int = Field(2000, ge=0, le=MAX_INT)
    smart_scan: Switch = 0
    checksum: Literal["xxhash", "jhash2"] = "xxhash"
    compare: Literal["content", "checksum"] = "content"
    """checksum: pages of equal checksum are deemed equal, as older courses teach it."""

    @model_validator(mode="after")
    def _smart_scan_is_of_6_18(self) -> Self:
        if self.smart_scan and self.model == "6.1":
            raise ValueError('smart_scan: 1 needs model: "6.18" (Linux 6.1 has no smart_scan)')
        return self


class SwapDevice(Strict):
    """A swap device that is none of the presets."""

    latency: Duration = Field(ge=1)
    bandwidth: Bandwidth
    queue_depth: int = Field(1, ge=1, le=65536)


DevicePreset = Literal["hdd", "ssd", "nvme"]


def _device_kind(value: Any) -> str:
    return "mapping" if isinstance(value, dict | SwapDevice) else "preset"


class Swap(Strict):
    """One swap area."""

    size: Annotated[Bytes, Field(ge=PAGE_SIZE * 2, le=MAX_MEMORY_BYTES), AfterValidator(in_pages)]
    device: Annotated[
        Annotated[DevicePreset, Tag("preset")] | Annotated[SwapDevice, Tag("mapping")],
        Discriminator(_device_kind),
    ] = "ssd"


def _check_hardware(body: "Host | MachineBody") -> None:
    """Raise ValueError for combinations that the models alone do not see."""
    spec = MachineSpec(
        memory_bytes=body.memory,
        pageable_tables=body.vm.pageable_tables,
        swap=None if body.swap is None else SwapSpec(body.swap.size),
        guests=(GuestRam(body.memory),) if isinstance(body, Host) else (),
    )
    check_pageable_tables(spec.with_hw(**body.hw.keys()))


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
    for kind, model in (("program", Program), ("trace", Trace)):
        if isinstance(value, model) or (isinstance(value, dict) and kind in value):
            return kind
    return "workload"


Process = Annotated[
    Annotated[Workload, Tag("workload")]
    | Annotated[Trace, Tag("trace")]
    | Annotated[Program, Tag("program")],
    Discriminator(_process_kind),
]


class MachineBody(Strict):
    """A full simulated machine, wherever it runs."""

    memory: Memory
    cpus: int = Field(1, ge=1, le=MAX_CPUS)
    vm: Vm = Vm()
    ksm: Ksm = Ksm(run=0)
    swap: Swap | None = None
    hw: Hardware = Hardware()
    era: Era | None = None
    """Which kernel's mechanisms; null: the scenario's."""
    processes: several(Process) = ()  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _hardware_exists(self) -> Self:
        _check_hardware(self)
        return self

    @model_validator(mode="after")
    def _processes_run_on_its_cpus(self) -> Self:
        for index, process in enumerate(self.processes):
            if isinstance(process, Workload | Trace) and process.cpu >= self.cpus:
                raise ValueError(f"processes.{index}.cpu: {process.cpu}, but there are {self.cpus} CPUs")
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


class Host(Strict):
    """A machine that runs guests."""

    name: Name
    memory: Memory
    cpus: int = Field(1, ge=1, le=MAX_CPUS)
    vm: Vm = Vm()
    ksm: Ksm = Ksm()
    swap: Swap | None = None
    hw: Hardware = Hardware()
    era: Era | None = None
    """Which kernel's mechanisms; null: the scenario's."""
    guests: Annotated[tuple[Guests, ...], Field(strict=False, min_length=1, max_length=MAX_ENTRIES)]

    @model_validator(mode="after")
    def _hardware_exists(self) -> Self:
        _check_hardware(self)
        return self


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
