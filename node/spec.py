"""What a machine is built from: plain numbers, checked; nothing here knows YAML or a kernel's records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from node.hw.cost import REFERENCE_GHZ
from node.hw.tlb import SKYLAKE_L1_SETS, SKYLAKE_L1_WAYS, SKYLAKE_L2_SETS, SKYLAKE_L2_WAYS
from shared.constants import PAGE_SIZE

MHZ_PER_GHZ: Final = 1000


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
class SwapSpec:
    """A swap area: its size with the header's page, and a preset's name or a device's figures."""

    size_bytes: int
    device: str | Mapping[str, int] = "ssd"


@dataclass(frozen=True, slots=True)
class TlbSpec:
    """Entries and ways of both levels."""

    l1_entries: int = SKYLAKE_L1_SETS * SKYLAKE_L1_WAYS
    l1_ways: int = SKYLAKE_L1_WAYS
    l2_entries: int = SKYLAKE_L2_SETS * SKYLAKE_L2_WAYS
    l2_ways: int = SKYLAKE_L2_WAYS


@dataclass(frozen=True, slots=True)
class WorkSpec:
    """A process: a workload of node/work.py, or a program's text."""

    workload: str = ""
    memory_bytes: int = 0
    operations: int = 0
    write_percent: int = 50
    cpu: int = 0
    skew_thousandths: int = 1000
    mergeable: bool = False
    think_ns: int = 0
    program: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class GuestRam:
    """What a host is told of one of its guests."""

    memory_bytes: int
    cpus: int = 1


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine. Sizes in bytes; ``min_free_kbytes`` None is Linux's formula."""

    memory_bytes: int
    cpus: int = 1
    seed: int = 0
    machine: int = 0  # its number in the fleet: with the seed, the key of its random numbers
    min_free_kbytes: int | None = None
    watermark_scale_factor: int = 10
    swappiness: int = 60
    page_cluster: int = 3
    ksm: KsmSpec = field(default_factory=KsmSpec)
    swap: SwapSpec | None = None
    tlb: TlbSpec = field(default_factory=TlbSpec)
    cost: Mapping[str, int] = field(default_factory=dict)
    clock_ghz: Fraction = REFERENCE_GHZ
    works: tuple[WorkSpec, ...] = ()
    is_guest: bool = False
    guests: tuple[GuestRam, ...] = ()
    recorded: Mapping[int, int] = field(default_factory=dict)  # content id -> jhash2, of recorded pages

    @property
    def nr_frames(self) -> int:
        """Frames of RAM."""
        return self.memory_bytes // PAGE_SIZE

    @staticmethod
    def from_dict(spec: Mapping[str, Any]) -> "MachineSpec":
        """Read a member's spec, as ``cluster/plan.py`` writes it."""
        vm = spec.get("vm", {})
        hw = spec.get("hw", {})
        tlb = {key: value for key, value in hw.get("tlb", {}).items() if value is not None}
        clock_mhz = hw.get("clock_mhz")
        swap = spec.get("swap")
        return MachineSpec(
            memory_bytes=spec["memory_bytes"],
            cpus=spec.get("cpus", 1),
            seed=spec.get("seed", 0),
            machine=spec.get("machine", 0),
            **vm,
            ksm=KsmSpec(**spec.get("ksm", {})),
            swap=None if swap is None else SwapSpec(**swap),
            tlb=TlbSpec(**tlb),
            cost=hw.get("cost", {}),
            clock_ghz=REFERENCE_GHZ if clock_mhz is None else Fraction(clock_mhz, MHZ_PER_GHZ),
            works=tuple(WorkSpec(**process) for process in spec.get("processes", ())),
            is_guest=spec.get("kind") == "guest",
            guests=tuple(
                GuestRam(guest["memory_bytes"], guest.get("cpus", 1)) for guest in spec.get("guests", ())
            ),
            recorded=spec.get("recorded", {}),
        )
