"""What a machine is built from: plain numbers, checked; nothing here knows YAML or a kernel's records."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

from node.hw.cost import REFERENCE_GHZ
from node.hw.dma_spec import DeviceSpec
from node.hw.hardware import DEFAULT_TLB, HW_KEYS, HwSpec, check_hardware, resolve_hw
from node.hw.processors import DATA_CACHE_SETS, DATA_CACHE_WAYS, TlbArraySpec, TlbSpec
from node.kmap.ram_map import RamMap, ram_map
from node.phys.numa import MAX_DISTANCE, MAX_NODES, check_distances
from node.phys.zone import LOWMEM_RESERVE_RATIO
from shared.alloc_traces import AllocTrace
from shared.constants import CACHE_LINE_BYTES, PAGE_SIZE
from shared.units import format_size

MHZ_PER_GHZ: Final = 1000
# 23 bits of a 32-bit swap entry are the slot's number (Linux arch/x86/include/asm/pgtable-2level.h).
MAX_SWAP_32BIT: Final = PAGE_SIZE << 23


@dataclass(frozen=True, slots=True)
class KsmSpec:
    """Files of /sys/kernel/mm/ksm, and which kernel's KSM."""

    run: int = 0
    model: str = "6.1"
    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    max_page_sharing: int = 256
    use_zero_pages: int = 0
    merge_across_nodes: int = 1
    stable_node_chains_prune_millisecs: int = 2000
    smart_scan: int = 0
    checksum: str = "xxhash"
    compare: str = "content"


@dataclass(frozen=True, slots=True)
class KhugepagedSpec:
    """Files of /sys/kernel/mm/transparent_hugepage/khugepaged."""

    defrag: int = 1
    pages_to_scan: int = 4096
    scan_sleep_millisecs: int = 10000
    alloc_sleep_millisecs: int = 60000
    max_ptes_none: int = 511
    max_ptes_swap: int = 64
    max_ptes_shared: int = 256


@dataclass(frozen=True, slots=True)
class SwapSpec:
    """A swap area: its size with the header's page, and a preset's name or a device's figures."""

    size_bytes: int
    device: str | Mapping[str, int] = "ssd"


@dataclass(frozen=True, slots=True)
class DataCacheSpec:
    """The data cache of each CPU (node/hw/data_cache.py): off, serial, overlapped, extra_stage or virtual."""

    mode: str = "off"
    sets: int = DATA_CACHE_SETS
    ways: int = DATA_CACHE_WAYS
    line_bytes: int = CACHE_LINE_BYTES


@dataclass(frozen=True, slots=True)
class WorkSpec:
    """A process: a workload of node/work.py, a recorded trace (node/traces.py), or a program's text.

    Or, of the kernel itself, an allocation trace.
    """

    workload: str = ""
    memory_bytes: int = 0
    operations: int = 0
    write_percent: int = 50
    cpu: int = 0
    skew_thousandths: int = 1000
    mergeable: bool = False
    think_ns: int = 0
    device: int = 0  # of the workload dma (node/dma_work.py): its place in the machine's devices
    direction: str = "from_device"
    coherent: bool = False  # its buffer is one block within the device's reach
    trace: str = ""  # path of its file
    windows: tuple[int, ...] = (1,)  # of the trace, in the order in which they are replayed
    loops: int = 1  # over those windows, or the allocation trace; 0: without end
    huge_pages: str = "none"  # "2M": the trace's pages are parts of 2 MiB pages
    allocations: AllocTrace | None = None  # what the kernel allocates and frees (node/alloc_traces.py)
    program: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class GuestRam:
    """What a host is told of one of its guests."""

    memory_bytes: int
    cpus: int = 1


@dataclass(frozen=True, slots=True)
class NumaSpec:
    """NUMA nodes, and how far they are from one another; no distances: 10 to itself, 20 to any other."""

    nodes: int = 1
    distances: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine. Sizes in bytes; ``min_free_kbytes`` None is Linux's formula."""

    memory_bytes: int
    cpus: int = 1
    seed: int = 0
    machine: int = 0  # its number in the fleet: with the seed, the key of its random numbers
    min_free_kbytes: int | None = None
    watermark_scale_factor: int = 10
    watermark_boost_factor: int = 15000
    lowmem_reserve_ratio: tuple[int, ...] = LOWMEM_RESERVE_RATIO  # of DMA, DMA32, NORMAL, HIGHMEM, MOVABLE
    percpu_pagelist_high_fraction: int = 0
    extfrag_threshold: int = 500
    compact_unevictable_allowed: int = 1
    swappiness: int = 60
    page_cluster: int = 3
    overcommit_memory: int = 0
    overcommit_ratio: int = 50
    overcommit_kbytes: int = 0
    oom_kill_allocating_task: int = 0
    panic_on_oom: int = 0
    max_map_count: int = 65530
    mmap_min_addr: int = 65536  # Debian's CONFIG_DEFAULT_MMAP_MIN_ADDR
    fault_around_bytes: int = 65536
    # Transparent huge pages (node/vm/thp.py). Debian has enabled=always; here a machine gets them on request.
    thp_enabled: str = "never"  # or madvise, always
    thp_defrag: str = "madvise"  # or always, defer, defer+madvise, never
    thp_use_zero_page: int = 1
    khugepaged: KhugepagedSpec = field(default_factory=KhugepagedSpec)
    vma_search: str = "tree"  # or list (node/vm/vma.py)
    rmap_walk: str | None = None  # tree or list (node/vm/anon_vma.py); None: what the era has
    pageable_tables: bool = False  # second-level page tables are swapped too (node/vm/table_swap.py)
    numa: NumaSpec = field(default_factory=NumaSpec)
    movablecore_bytes: int = 0  # of zone MOVABLE, shared by the nodes
    device_bytes: int = 0  # of zone DEVICE, besides the RAM
    ksm: KsmSpec = field(default_factory=KsmSpec)
    swap: SwapSpec | None = None
    hw: HwSpec = field(default_factory=HwSpec)  # and tlb: with_hw() makes both of a scenario's keys
    tlb: TlbSpec = DEFAULT_TLB
    data_cache: DataCacheSpec = field(default_factory=DataCacheSpec)
    cost: Mapping[str, int] = field(default_factory=dict)
    clock_ghz: Fraction = REFERENCE_GHZ
    allocator: str | None = None  # slub, slab or slob (node/kalloc/choice.py); None: what the era has
    slob_policy: str | None = None  # one-list, three-lists or best-fit; None: what the era has
    slab_debug: str = ""  # letters of FZPU
    devices: tuple[DeviceSpec, ...] = ()
    works: tuple[WorkSpec, ...] = ()
    is_guest: bool = False
    guests: tuple[GuestRam, ...] = ()
    recorded: Mapping[int, int] = field(default_factory=dict)  # content id -> jhash2, of recorded pages

    @property
    def ram(self) -> RamMap:
        """Which frame numbers are RAM. Raises ValueError, in one line, for nodes that memory cannot be shared by."""
        return ram_map(
            self.memory_bytes // PAGE_SIZE,
            has_hole=not self.is_guest and self.hw.paging in ("4level", "5level"),
            nr_nodes=self.numa.nodes,
            device_pages=self.device_bytes // PAGE_SIZE,
        )

    @property
    def nr_frames(self) -> int:
        """Frame numbers: of RAM, of the holes in it, and of memory that a device brings."""
        return self.ram.nr_frames

    def with_hw(self, **keys: Any) -> "MachineSpec":
        """Return this machine with the hardware that ``keys`` describe: ``spec.with_hw(processor="zen4")``.

        The keys are those of ``resolve_hw`` (node/hw/hardware.py); what they do not say is as the processor has
        it, whatever the machine had before. Raises ValueError, in one line, for hardware that does not exist.
        """
        hw, tlb = resolve_hw(keys)
        changed = replace(self, hw=hw, tlb=tlb)
        check_hw(changed)
        return changed

    @staticmethod
    def from_dict(spec: Mapping[str, Any]) -> "MachineSpec":
        """Read a member's spec, as ``cluster/plan.py`` writes it.

        Raises ValueError, in one line, for hardware that does not exist.
        """
        vm = spec.get("vm", {})
        hw = spec.get("hw", {})
        keys = {key: hw[key] for key in HW_KEYS if key in hw} | {"era": spec.get("era")}
        clock_mhz = hw.get("clock_mhz")
        swap = spec.get("swap")
        thp = spec.get("thp", {})
        return MachineSpec(
            memory_bytes=spec["memory_bytes"],
            cpus=spec.get("cpus", 1),
            seed=spec.get("seed", 0),
            machine=spec.get("machine", 0),
            **vm,
            **{f"thp_{key}": value for key, value in thp.items() if key != "khugepaged"},
            khugepaged=KhugepagedSpec(**thp.get("khugepaged", {})),
            numa=NumaSpec(**spec.get("numa", {})),
            movablecore_bytes=spec.get("movablecore_bytes", 0),
            device_bytes=spec.get("device_bytes", 0),
            ksm=KsmSpec(**spec.get("ksm", {})),
            swap=None if swap is None else SwapSpec(**swap),
            data_cache=DataCacheSpec(**hw.get("data_cache", {})),
            cost=hw.get("cost", {}),
            clock_ghz=REFERENCE_GHZ if clock_mhz is None else Fraction(clock_mhz, MHZ_PER_GHZ),
            allocator=spec.get("allocator"),
            slob_policy=spec.get("slob_policy"),
            slab_debug=spec.get("slab_debug", ""),
            devices=tuple(DeviceSpec(**device) for device in spec.get("devices", ())),
            works=tuple(WorkSpec(**process) for process in spec.get("processes", ())),
            is_guest=spec.get("kind") == "guest",
            guests=tuple(
                GuestRam(guest["memory_bytes"], guest.get("cpus", 1)) for guest in spec.get("guests", ())
            ),
            recorded=spec.get("recorded", {}),
        ).with_hw(**keys)


def check_pageable_tables(spec: MachineSpec) -> None:
    """Raise ValueError, in one line, if the machine is to swap page tables and cannot."""
    if not spec.pageable_tables:
        return
    if spec.hw.paging != "32bit":
        raise ValueError(f"vm.pageable_tables: true needs hw.paging 32bit, not {spec.hw.paging}")
    if spec.swap is None:
        raise ValueError("vm.pageable_tables: true needs swap, and there is none")
    if spec.swap.size_bytes > MAX_SWAP_32BIT:
        raise ValueError(
            f"vm.pageable_tables: true reaches {format_size(MAX_SWAP_32BIT)} of swap,"
            f" not {format_size(spec.swap.size_bytes)}"
        )
    if spec.guests:
        raise ValueError(
            "vm.pageable_tables: true is not for hosts, which keep the tables of their guests' memory"
        )


def check_thp(spec: MachineSpec) -> None:
    """Raise ValueError, in one line, if the machine is to have huge pages and its page tables do not."""
    if spec.thp_enabled != "never" and spec.hw.paging not in ("pae", "4level", "5level"):
        raise ValueError(
            f"thp.enabled: {spec.thp_enabled} needs huge pages of 2 MiB, not hw.paging {spec.hw.paging}"
        )


def check_zones(spec: MachineSpec) -> None:
    """Raise ValueError, in one line, for nodes or zones that the machine cannot have."""
    if not 1 <= spec.numa.nodes <= MAX_NODES:
        raise ValueError(f"numa.nodes: {spec.numa.nodes} is outside 1..{MAX_NODES}")
    if spec.numa.nodes > 1 and (spec.is_guest or spec.hw.paging not in ("4level", "5level")):
        raise ValueError(
            "numa.nodes: more than one is for plain machines and hosts with 4level or 5level paging"
        )
    if spec.numa.distances:
        check_distances(spec.numa.nodes, spec.numa.distances)
    if spec.movablecore_bytes >= spec.memory_bytes:
        raise ValueError(
            f"movablecore: {format_size(spec.movablecore_bytes)} is not less than the memory,"
            f" {format_size(spec.memory_bytes)}"
        )


def check_hw(spec: MachineSpec) -> None:
    """Raise ValueError, in one line, if the machine's hardware cannot be built or cannot hold its memory."""
    check_hardware(spec.hw, spec.tlb, spec.memory_bytes)


__all__ = [
    "MAX_DISTANCE",
    "MAX_NODES",
    "DataCacheSpec",
    "DeviceSpec",
    "GuestRam",
    "HwSpec",
    "KhugepagedSpec",
    "KsmSpec",
    "MachineSpec",
    "NumaSpec",
    "SwapSpec",
    "TlbArraySpec",
    "TlbSpec",
    "WorkSpec",
    "check_distances",
    "check_hw",
    "check_pageable_tables",
    "check_thp",
    "check_zones",
]
