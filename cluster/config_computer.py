"""What a scenario may say of any computer, host or plain machine: its memory, its kernel, its hardware."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from cluster.config_allocations import Allocator, SlabDebug, SlobPolicy
from cluster.config_hardware import Hardware
from cluster.config_numa import LowmemReserveRatio, Numa
from cluster.config_values import (
    MAX_CPUS,
    MAX_INT,
    MAX_MEMORY_BYTES,
    Bandwidth,
    Bytes,
    Duration,
    Era,
    KsmModel,
    Memory,
    Strict,
    Switch,
    in_pages,
)
from node.spec import GuestRam, MachineSpec, NumaSpec, SwapSpec, check_pageable_tables, check_thp, check_zones
from shared.constants import HUGE_PAGE_SIZE, PAGE_SIZE


class Vm(Strict):
    """Knobs of /proc/sys/vm."""

    swappiness: int = Field(60, ge=0, le=200)
    min_free_kbytes: int | None = Field(None, ge=1, le=MAX_INT)
    """null: Linux's formula over the memory."""
    watermark_scale_factor: int = Field(10, ge=1, le=3000)
    watermark_boost_factor: int = Field(15000, ge=0, le=MAX_INT)
    """How far fragmentation raises the watermarks, in ten-thousandths of high; 0: not at all."""
    lowmem_reserve_ratio: LowmemReserveRatio = (256, 256, 32, 0, 0)
    """Of the zones DMA, DMA32, NORMAL, HIGHMEM and MOVABLE; 0: nothing is kept."""
    percpu_pagelist_high_fraction: int = Field(0, ge=0, le=MAX_INT)
    """0: per-CPU lists hold up to the zone's low watermark; otherwise 8 at least."""
    extfrag_threshold: int = Field(500, ge=0, le=1000)
    compact_unevictable_allowed: Switch = 1
    page_cluster: int = Field(3, ge=0, le=31)
    """Pages of a swap readahead, as a power of two."""
    overcommit_memory: int = Field(0, ge=0, le=2)
    """0: one request may not be for more than all memory and swap; 1: any may; 2: all may not pass CommitLimit."""
    overcommit_ratio: int = Field(50, ge=0, le=MAX_INT)
    """Percent of memory in CommitLimit, beside swap."""
    overcommit_kbytes: int = Field(0, ge=0, le=MAX_INT)
    """Memory in CommitLimit instead of a percentage; 0: the percentage."""
    max_map_count: int = Field(65530, ge=1, le=MAX_INT)
    """Areas that an address space may have."""
    mmap_min_addr: Annotated[Bytes, Field(ge=0, le=MAX_MEMORY_BYTES)] = 65536
    """Lowest address of a mapping."""
    fault_around_bytes: Annotated[Bytes, Field(ge=PAGE_SIZE, le=HUGE_PAGE_SIZE), AfterValidator(in_pages)] = (
        65536
    )
    """Around a fault on a file, how much of what is cached is mapped with it; a power of two."""
    vma_search: Literal["tree", "list"] = "tree"
    """How an area is looked up by address."""
    rmap_walk: Literal["tree", "list"] | None = None
    """How the areas that may map an anonymous page are found; null: tree, in the era lecture list."""
    pageable_tables: bool = False
    """Second-level page tables of 32bit paging are swapped out with the last page that they map. Not Linux's."""

    @field_validator("fault_around_bytes")
    @classmethod
    def _is_a_power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two")
        return value


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


class Khugepaged(Strict):
    """Files of /sys/kernel/mm/transparent_hugepage/khugepaged."""

    defrag: Switch = 1
    pages_to_scan: int = Field(4096, ge=1, le=MAX_INT)
    scan_sleep_millisecs: int = Field(10000, ge=0, le=MAX_INT)
    alloc_sleep_millisecs: int = Field(60000, ge=0, le=MAX_INT)
    max_ptes_none: int = Field(511, ge=0, le=511)
    max_ptes_swap: int = Field(64, ge=0, le=511)
    max_ptes_shared: int = Field(256, ge=0, le=511)


class Thp(Strict):
    """Files of /sys/kernel/mm/transparent_hugepage."""

    enabled: Literal["always", "madvise", "never"] = "never"
    """Debian's default is always."""
    defrag: Literal["always", "defer", "defer+madvise", "madvise", "never"] = "madvise"
    use_zero_page: Switch = 1
    khugepaged: Khugepaged = Khugepaged()


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


class Computer(Strict):
    """What hosts, plain machines and guests that are machines have in common."""

    memory: Memory
    cpus: int = Field(1, ge=1, le=MAX_CPUS)
    vm: Vm = Vm()
    numa: Numa = Numa()
    movablecore: Annotated[Bytes, Field(ge=0, le=MAX_MEMORY_BYTES), AfterValidator(in_pages)] = 0
    """Memory of the zone MOVABLE, as after movablecore=."""
    device_memory: Annotated[Bytes, Field(ge=0, le=MAX_MEMORY_BYTES), AfterValidator(in_pages)] = 0
    """Memory of the zone DEVICE, besides the RAM."""
    ksm: Ksm = Ksm(run=0)
    thp: Thp = Thp()
    """Transparent huge pages; on a host, of its guests' memory too."""
    swap: Swap | None = None
    hw: Hardware = Hardware()
    era: Era | None = None
    """Which kernel's mechanisms; null: the scenario's."""
    allocator: Allocator | None = None
    """Of the kernel's objects; null: slub, in the era lecture slab."""
    slob_policy: SlobPolicy | None = None
    """Where SLOB looks for a block; null: three-lists, in the era lecture one-list."""
    slab_debug: SlabDebug = ""
    """F sanity checks, Z red zones, P poisoning, U last users, as after slub_debug=."""

    @property
    def runs_guests(self) -> bool:
        """Whether it is a host."""
        return False

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        spec = MachineSpec(
            memory_bytes=self.memory,
            pageable_tables=self.vm.pageable_tables,
            thp_enabled=self.thp.enabled,
            swap=None if self.swap is None else SwapSpec(self.swap.size),
            guests=(GuestRam(self.memory),) if self.runs_guests else (),
            cpus=self.cpus,
            numa=NumaSpec(**self.numa.spec()),
            movablecore_bytes=self.movablecore,
        )
        spec = spec.with_hw(**self.hw.keys())
        check_pageable_tables(spec)
        check_thp(spec)
        check_zones(spec)
        return self
