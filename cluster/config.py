"""What a scenario may say: one pydantic model for each mapping of the YAML file.

Unknown keys are refused, nothing is coerced (``cpus: "2"`` is an error), and sizes, times and counts are
text with a unit (``512MiB``, ``20ms``, ``1M``) that becomes an integer of bytes, nanoseconds or operations
here, so that nothing after this file knows a unit. Kernel knobs carry Linux's names, units and limits.

``cluster/scenario_file.py`` reads the file and words the errors; ``cluster/plan.py`` turns a scenario into
the members of a fleet.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)

from node.spec import GuestRam, MachineSpec, SwapSpec, check_pageable_tables
from shared.constants import CACHE_LINE_BYTES, INT64_MAX, KIB, NS_PER_MS, NS_PER_S, PAGE_SIZE
from shared.units import format_duration, parse_bandwidth, parse_count, parse_duration, parse_size

MAX_MEMORY_BYTES: Final = 1 << 43  # 8 TiB: 2**31 frames, what an i4 frame number counts
MAX_CPUS: Final = 64
MAX_COUNT: Final = 4096
MAX_ENTRIES: Final = 4096
MAX_DURATION_NS: Final = 100 * 24 * 3600 * NS_PER_S  # CPU clocks are int64 picoseconds: 106 days
MIN_EPOCH_NS: Final = NS_PER_MS
MAX_SKEW_THOUSANDTHS: Final = 10_000
THOUSANDTHS: Final = 1000
MAX_INT: Final = (1 << 31) - 1
MAX_SEED: Final = INT64_MAX
MAX_TLB_ENTRIES: Final = 65536
MAX_CACHE_BYTES: Final = 1 << 30
PAGE_OFFSETS: Final = ("0xC0000000", "0xB0000000", "0x80000000", "0x78000000", "0x40000000")


def _with_unit(parse: Callable[[str], int], example: str) -> Callable[[Any], int]:
    def read(value: Any) -> int:  # whatever the YAML held
        if isinstance(value, str):
            return parse(value)
        raise ValueError(f"{value!r} has no unit: write it as {example}")

    return read


def _count(value: Any) -> int:  # whatever the YAML held
    if isinstance(value, str):
        return parse_count(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is no count: write it as 1000 or 1M")


def _text_of_number(value: Any) -> Any:
    """Let YAML's ``6.1`` stand for the text it was written as."""
    return str(value) if isinstance(value, float) else value


def _switch(value: Any) -> Any:
    """Read ``on`` and ``off``, which YAML 1.1 takes for true and false unless they are in quotes."""
    if isinstance(value, bool):
        return value
    if value in ("on", "off"):
        return value == "on"
    raise ValueError(f"{value!r} is not on or off")


def _text_of_off(value: Any) -> Any:
    """Let YAML's ``off``, which is false, stand for the text it was written as."""
    return "off" if value is False else value


def _is_off(value: Any) -> bool:
    return value is None or value is False or value == "off"


def _ways(value: Any) -> int | str:
    if value == "full":
        return "full"
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'{value!r} is neither a number of ways nor "full"')
    if value < 1:
        raise ValueError(f"{value} is below the minimum of 1 (direct-mapped)")
    if value > MAX_TLB_ENTRIES:
        raise ValueError(f"{value} is above the maximum of {MAX_TLB_ENTRIES}")
    return value


def _page_offset(value: Any) -> int:
    known = [int(text, 16) for text in PAGE_OFFSETS]
    number = (
        int(value, 16) if isinstance(value, str) and re.fullmatch("0[xX][0-9A-Fa-f]{1,16}", value) else value
    )
    if isinstance(number, bool) or number not in known:
        shown = hex(value) if isinstance(value, int) else repr(value)
        raise ValueError(f"{shown} is not one of {', '.join(PAGE_OFFSETS)}")
    return int(number)


def _scaled(units: int) -> Callable[[Any], int]:
    """Read a decimal number exactly, as an integer of 1/``units``."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not a decimal number")
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", str(value)):
            raise ValueError(f"{value!r} is not a decimal number such as 1.0")
        try:
            scaled = Decimal(str(value)) * units
        except InvalidOperation:  # pragma: no cover  # the pattern above admits digits only
            raise ValueError(f"{value!r} is not a decimal number") from None
        if scaled != int(scaled):
            raise ValueError(f"{value!r} is finer than 1/{units}")
        return int(scaled)

    return read


def _text_schema(example: str, *, number: bool = False) -> WithJsonSchema:
    kinds = ["string", "number"] if number else "string"
    return WithJsonSchema({"type": kinds, "examples": [example]})


def _in_pages(value: int) -> int:
    if value % PAGE_SIZE:
        raise ValueError(f"{value} bytes is not a whole number of {PAGE_SIZE}-byte pages")
    return value


Bytes = Annotated[int, BeforeValidator(_with_unit(parse_size, "512MiB")), _text_schema("512MiB")]
Duration = Annotated[int, BeforeValidator(_with_unit(parse_duration, "20ms")), _text_schema("20ms")]
Bandwidth = Annotated[
    int, BeforeValidator(_with_unit(parse_bandwidth, "500MB/s")), Field(ge=1), _text_schema("500MB/s")
]
Count = Annotated[int, BeforeValidator(_count), Field(ge=0), _text_schema("1M", number=True)]
Memory = Annotated[Bytes, Field(ge=PAGE_SIZE, le=MAX_MEMORY_BYTES), AfterValidator(_in_pages)]
"""At least a page here; how much a machine's kernel needs, node/build.py knows and says."""
Skew = Annotated[
    int,
    BeforeValidator(_scaled(THOUSANDTHS)),
    Field(le=MAX_SKEW_THOUSANDTHS),
    _text_schema("1.0", number=True),
]
ClockMhz = Annotated[
    int, BeforeValidator(_scaled(THOUSANDTHS)), Field(ge=1), _text_schema("2.5", number=True)
]
Switch = Annotated[int, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
KsmModel = Annotated[Literal["6.1", "6.18"], BeforeValidator(_text_of_number)]
Era = Annotated[Literal["6.1", "lecture"], BeforeValidator(_text_of_number)]
OnOff = Annotated[
    bool, BeforeValidator(_switch), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["on", "off"]}]})
]
Ways = Annotated[
    int | str,
    PlainValidator(_ways),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "full"}]}),
]
PageOffset = Annotated[
    int,
    PlainValidator(_page_offset),
    WithJsonSchema(
        {"anyOf": [{"enum": [*PAGE_OFFSETS]}, {"enum": [int(text, 16) for text in PAGE_OFFSETS]}]}
    ),
]


class Strict(BaseModel):
    """What every mapping of a scenario has in common: no unknown key, no coercion, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def _several(of: Any) -> Any:  # a type from a type
    """Return the type of a YAML list of ``of``, kept as a tuple."""
    return Annotated[tuple[of, ...], Field(strict=False, max_length=MAX_ENTRIES)]


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

    size: Annotated[Bytes, Field(ge=PAGE_SIZE * 2, le=MAX_MEMORY_BYTES), AfterValidator(_in_pages)]
    device: Annotated[
        Annotated[DevicePreset, Tag("preset")] | Annotated[SwapDevice, Tag("mapping")],
        Discriminator(_device_kind),
    ] = "ssd"


class TlbArray(Strict):
    """One array of a TLB, or a paging-structure cache; what is absent is as the processor has it."""

    entries: int | None = Field(None, ge=0, le=MAX_TLB_ENTRIES)
    """A multiple of the ways, in any number of sets. 0: there is none; to write off for the array says so too."""
    ways: Ways | None = None
    replacement: Literal["lru", "plru", "fifo", "random"] | None = None
    wired: int | None = Field(None, ge=0, le=MAX_TLB_ENTRIES)
    """Entries of each set that no refill replaces."""


NO_ARRAY: Final = {"entries": 0}
ArrayOrOff = Annotated[TlbArray, BeforeValidator(lambda value: NO_ARRAY if _is_off(value) else value)]
TlbSide = Annotated[
    dict[str, ArrayOrOff], BeforeValidator(lambda value: {"all": NO_ARRAY} if value is False else value)
]


class Tlb(Strict):
    """What differs from the processor's TLBs."""

    refill: Literal["hardware", "software"] | None = None
    data: TlbSide | None = None
    """First level, an array for each size of pages or for several: {4K: {entries: 64, ways: 4}, 2M+1G: off}."""
    instruction: TlbSide | None = None
    unified: TlbSide | None = None
    """First level, the same arrays for data and instructions."""
    second: TlbSide | None = None
    l1_entries: int | None = Field(None, ge=1, le=MAX_TLB_ENTRIES)
    """Short for data.4K.entries."""
    l1_ways: Ways | None = None
    l2_entries: int | None = Field(None, ge=1, le=MAX_TLB_ENTRIES)
    """Short for second.4K+2M.entries."""
    l2_ways: Ways | None = None


class WalkCaches(Strict):
    """What differs from the processor's paging-structure caches, by the entries they hold."""

    pd: ArrayOrOff | None = None
    pdpt: ArrayOrOff | None = None
    pml4: ArrayOrOff | None = None
    pml5: ArrayOrOff | None = None
    ept_pd: ArrayOrOff | None = None
    """Of a guest: entries of its host's table."""


def _no_walk_caches(value: Any) -> Any:
    return dict.fromkeys(WalkCaches.model_fields, NO_ARRAY) if value in (False, "off") else value


class DataCache(Strict):
    """A first-level data cache in front of memory, and how translation meets it."""

    mode: Annotated[
        Literal["off", "serial", "overlapped", "extra_stage", "virtual"], BeforeValidator(_text_of_off)
    ] = "off"
    size: Annotated[Bytes, Field(ge=1, le=MAX_CACHE_BYTES)] = 32 * KIB
    ways: int = Field(8, ge=1, le=MAX_TLB_ENTRIES)
    line_bytes: int = Field(CACHE_LINE_BYTES, ge=1, le=PAGE_SIZE)

    @model_validator(mode="after")
    def _has_whole_sets(self) -> Self:
        if self.size % (self.ways * self.line_bytes):
            raise ValueError(
                f"size: {self.size} bytes is not a multiple of {self.ways} ways of {self.line_bytes} bytes"
            )
        return self

    @property
    def sets(self) -> int:
        """Sets of ``ways`` lines."""
        return self.size // (self.ways * self.line_bytes)


class Hardware(Strict):
    """The machine's processor, and what differs from it."""

    processor: Literal["skylake", "icelake", "zen2", "zen3", "zen4", "textbook", "r3000"] = "skylake"
    paging: Literal["none", "32bit", "4level", "5level"] = "4level"
    page_offset: PageOffset | None = None
    """Where the kernel begins, in 32bit paging; null: 0xC0000000."""
    pcid: OnOff | None = None
    """null: on if the processor has PCIDs and paging is 4level or 5level."""
    pti: OnOff | None = None
    """Kernel page-table isolation; null: on if the processor has Meltdown, and likewise."""
    global_pages: OnOff | None = None
    physical_bits: int | None = Field(None, ge=32, le=52)
    """Width of a physical address; null: the processor's."""
    tlb: Tlb = Tlb()
    walk_caches: Annotated[WalkCaches, BeforeValidator(_no_walk_caches)] = WalkCaches()
    data_cache: DataCache = DataCache()
    cost: dict[Name, Annotated[int, Field(ge=0, le=MAX_INT)]] = {}
    """Cycles by the names of node/hw/cost.py."""
    clock_ghz: ClockMhz | None = None

    def keys(self) -> dict[str, Any]:
        """Return what was said of the translation hardware, as ``MachineSpec.with_hw`` takes it."""
        return self.model_dump(exclude={"data_cache", "cost", "clock_ghz"}, exclude_unset=True)


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
    memory: Annotated[Bytes, Field(ge=PAGE_SIZE, le=MAX_MEMORY_BYTES), AfterValidator(_in_pages)]
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
    processes: _several(Process) = ()  # type: ignore[valid-type]

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
    hosts: _several(Host) = ()  # type: ignore[valid-type]
    machines: _several(Machine) = ()  # type: ignore[valid-type]

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
