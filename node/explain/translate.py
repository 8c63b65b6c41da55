"""``pagefleet explain translate``: one access, step by step, and what the machine makes of it.

    Question          which address, what access, from where
      |   the CPU goes there as Linux does: switch_mm, and in or out of the kernel
      |   look: registers, TLBs, paging-structure caches, the entries of every level      nothing changes
      |   access_as(): the machine's own access                                           TLBs, A and D, counters
      v
    one dict of plain values: what was seen, and what came of it                          docs/explain.md

So what is shown beside the verdict is read from the same words that the walk reads, and the verdict is the
machine's. With ``repeat`` the kernel then serves the fault, if there was one, and the access is made again, by
whatever the TLBs now hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from node.counters import Current, HwEvent, Knob, VmEvent
from node.explain.cached import look_into_tlbs, look_into_walk_caches
from node.explain.entries import serve_fault, stand_in, sync_kernel_entry
from node.explain.faults import SERVED, SYNCED, area_at, describe_fault, what_linux_does
from node.explain.tables import Place, hex_word, page_of, read_levels
from node.fault.kinds import VmFault
from node.hw.paging import PAGING_MODES, AccessKind, Mode, PagingMode, is_canonical
from node.hw.registers import Cr0, Cr4, Efer
from node.joints import access_as
from node.kmap.asid import INIT_MM, NR_ASIDS, USER_PCID_BIT
from node.kmap.entry import KERNEL_MODE, USER_MODE, USER_PGD_BIT
from node.kmap.memory_map import Region, RegionName, region_of, regions
from node.phys.page import PageFlag
from node.pool import Pool
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT, PS_PER_NS
from shared.wrap64 import to_signed

if TYPE_CHECKING:
    from node.machine import Machine
    from node.spec import MachineSpec
    from node.state import State

FIRST: Final = "first"  # the address where a process's memory begins
KERNEL: Final = "kernel"
USER: Final = "user"
_KINDS: Final = {kind.name.lower(): kind for kind in AccessKind}
_HITS: Final = {
    HwEvent.TLB_L1_HIT: "first-level TLB",
    HwEvent.ITLB_L1_HIT: "first-level TLB",
    HwEvent.TLB_L2_HIT: "second-level TLB",
    HwEvent.ITLB_L2_HIT: "second-level TLB",
}
_OUTCOMES: Final = {
    VmFault.DONE: "done",
    VmFault.OOM: "out of memory: the process is killed",
    VmFault.SEGV: "SIGSEGV",
}
# Where a program's pointers lead, rightly or not: its own accesses are asked about.
_NOT_THE_KERNELS: Final = (
    RegionName.USER,
    RegionName.NON_CANONICAL,
    RegionName.MEMORY,
    RegionName.NO_MEMORY,
)
_PS_PER_CYCLE_AT_1_GHZ: Final = 1000
# What a frame is, by the first of these flags that it has.
_FRAME_KINDS: Final = {
    PageFlag.ZERO_PAGE: "the shared page of zeroes",
    PageFlag.PAGE_TABLE: "a page table",
    PageFlag.RESERVED: "the kernel's own, or the firmware's",
    PageFlag.KSM: "an anonymous page, merged by KSM",
    PageFlag.ANON: "an anonymous page",
    PageFlag.HUGETLB: "part of a huge page",
    PageFlag.UNPAGED: "part of a process's block",
    PageFlag.KERNEL: "allocated by the kernel for itself",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``base`` is an unsigned address, ``first``, or a region's name with dashes; ``offset`` is added.

    ``mode`` None: kernel in the kernel's regions, else user. ``process`` counts address spaces from 0 in the order of
    their making; ``kernel`` is the kernel's own, None the first, or the kernel's if there is none. ``cpu`` None:
    the process's. ``ac``: EFLAGS.AC is set, as in copy_from_user. ``repeat``: how often the access is made again.
    """

    base: int | str
    offset: int = 0
    access: str = "read"
    mode: str | None = None
    process: int | str | None = None
    cpu: int | None = None
    ac: bool = False
    repeat: int = 0


def explain_translation(machine: "Machine", question: Question) -> dict[str, Any]:
    """Make the access that ``question`` describes and return all that docs/explain.md lists.

    The machine is changed: a CPU has made an access. Raises ValueError, in one line, for a question about
    something that the machine lacks.
    """
    return _Translation(machine, question).explain()


class _Translation:
    """One question, with everything that it names looked up."""

    def __init__(self, machine: "Machine", question: Question) -> None:
        self.question = question
        self.spec = machine.spec
        self.state = machine.state
        self.mode = PAGING_MODES[PagingMode(self.state.knob[Knob.PAGING_MODE])]
        self.mm = _find_process(self.state, question.process)
        self.cpu = _find_cpu(self.state, self.mm, question.cpu)
        self.kind = _KINDS[question.access]
        self.address = _find_address(self.spec, self.state, self.mm, question)
        self.region = _region(self.spec, self.address)
        self.vaddr = to_signed(self.address)
        self.cpl = self._find_level()
        self.place = Place(self.state, self.cpu, self.vaddr)

    def _find_level(self) -> int:
        if self.question.mode is None:
            is_user = self.region.name in _NOT_THE_KERNELS and self.mm != INIT_MM
        else:
            is_user = self.question.mode == USER
        if is_user and self.mm == INIT_MM:
            raise ValueError("mode: nothing runs in user mode on the kernel's own address space")
        return USER_MODE if is_user else KERNEL_MODE

    def explain(self) -> dict[str, Any]:
        stand_in(self.state, self.cpu, self.mm, self.cpl)
        self.place.registers.ac = int(self.question.ac)
        said: dict[str, Any] = {
            "machine": _describe_machine(self.spec),
            "question": self._describe_question(),
            "address": self._split(),
            "region": _describe_region(self.region, self.mode),
            "area": area_at(self.state, self.mm, self.vaddr),
            "registers": _read_registers(self.place),
        }
        accesses = [self._access()]
        for _ in range(self.question.repeat):
            if not self._may_go_on(accesses[-1]["outcome"]):
                break
            accesses.append(self._access())
        return said | {"accesses": accesses}

    def _may_go_on(self, outcome: dict[str, Any]) -> bool:
        """Let Linux serve the last access's fault, if it was one; return whether the access can be made again."""
        if outcome["result"] == "page":
            return True
        outcome["linux"]["outcome"] = self._let_linux(outcome["linux"]["action"])
        return bool(outcome["linux"]["outcome"] == _OUTCOMES[VmFault.DONE])

    def _describe_question(self) -> dict[str, Any]:
        return {
            "access": self.question.access,
            "mode": USER if self.cpl else KERNEL,
            "process": KERNEL if self.mm == INIT_MM else self.mm - 1,
            "cpu": self.cpu,
            "ac": self.question.ac,
            "time_ns": int(self.state.cpu[self.cpu].clock_ps) // PS_PER_NS,
        }

    def _split(self) -> dict[str, Any]:
        """Return the address as the mode splits it."""
        bits = self.mode.linear_bits
        parts = []
        behind = bits
        for number, level in enumerate(self.mode.levels):
            record = self.state.paging_level[number]
            index = self.vaddr >> int(record.shift) & int(record.index_mask)
            name = {"level": level.linux, "intel": level.intel}
            parts.append({**name, "high_bit": behind - 1, "low_bit": level.shift, "index": index})
            behind = level.shift
        mode = PagingMode(self.state.knob[Knob.PAGING_MODE])
        return {
            "linear": hex_word(self.vaddr, self.mode),
            "linear_bits": bits,
            "canonical": is_canonical(mode, self.address),
            "parts": parts,
            "page_offset": f"{self.address & PAGE_OFFSET_MASK:#05x}",
        }

    # --- one access -------------------------------------------------------------------------------------

    def _access(self) -> dict[str, Any]:
        """Look at all that the access will meet, make it, and say what came of it."""
        translates = bool(int(self.place.registers.cr0) & Cr0.PG) and self._split()["canonical"]
        levels = read_levels(self.place) if translates else []
        seen = {
            "tlbs": look_into_tlbs(self.place, self.spec, self.kind) if translates else [],
            "walk_caches": look_into_walk_caches(self.place, self.spec) if translates else [],
        }
        page = page_of(self.place, levels)
        before = _counters(self.state)
        clock_ps = int(self.state.current[Current.CLOCK_PS])
        pfn = access_as(self.state, self.vaddr, self.kind)
        spent_ps = int(self.state.current[Current.CLOCK_PS]) - clock_ps
        counters = {
            name: value - before[name]
            for name, value in _counters(self.state).items()
            if value != before[name]
        }
        if translates:
            _note_changes(levels, read_levels(self.place))
        outcome = self._describe_fault(levels) if pfn == NIL else self._describe_page(pfn, counters, page)
        return {
            **seen,
            "walk": self._describe_walk(levels, seen["walk_caches"], counters),
            "outcome": outcome,
            "cost": {"cycles": self._cycles(spent_ps), "ps": spent_ps},
            "counters": counters,
        }

    def _cycles(self, ps: int) -> int:
        return round(ps * Fraction(self.spec.clock_ghz) / _PS_PER_CYCLE_AT_1_GHZ)

    def _describe_walk(
        self, levels: list[dict[str, Any]], caches: list[dict[str, Any]], counters: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return the levels, and which of them this access read: none if a TLB answered."""
        references = counters.get("walk_references", 0)
        first_read = len(levels) - references
        for number, level in enumerate(levels):
            level["read"] = bool(references) and number >= first_read
        hit = next((cache["cache"] for cache in caches if cache["held"]), None)
        return {
            "levels": levels,
            "references": references,
            "ept_references": counters.get("ept_references", 0),
            "shortened_by": hit if counters.get("walk_cache_hit") else None,
        }

    def _describe_page(
        self, pfn: int, counters: Mapping[str, int], page: dict[str, Any] | None
    ) -> dict[str, Any]:
        served_by = next((name for event, name in _HITS.items() if event.name.lower() in counters), "walk")
        outcome = {
            "result": "page",
            "physical_address": f"{(pfn << PAGE_SHIFT) | (self.address & PAGE_OFFSET_MASK):#x}",
            "frame": f"{pfn:#x}",
            "frame_is": _describe_frame(self.state, pfn),
        }
        if page is None:
            return outcome | {"served_by": "nothing: paging is off"}
        about = {key: page[key] for key in ("page_size", "memory_type", "global", "rights", "key")}
        return outcome | {"served_by": served_by} | about

    def _describe_fault(self, levels: list[dict[str, Any]]) -> dict[str, Any]:
        fault = describe_fault(self.place, self.kind, levels)
        in_user_space = self.region.name == RegionName.USER
        linux = what_linux_does(self.place, self.kind, self.mm, levels, in_user_space=in_user_space)
        return fault | {"linux": linux}

    def _let_linux(self, action: str) -> str:
        """Let the kernel do about a fault what it does; return how that ended."""
        if action == SERVED:
            return _OUTCOMES[VmFault(serve_fault(self.state, self.mm, self.vaddr, self.kind))]
        if action == SYNCED:
            pgd_pfn = int(self.state.mm[self.mm].pgd_pfn)
            return _OUTCOMES[VmFault(sync_kernel_entry(self.state, pgd_pfn, self.vaddr))]
        return action


# --- what the question names ----------------------------------------------------------------------------


def _find_process(state: "State", process: int | str | None) -> int:
    """Return the address space that is asked about. Raises ValueError if there is none."""
    nr_made = int(state.pool[Pool.MM].mark) - 1
    if process == KERNEL or (process is None and nr_made == 0):
        return INIT_MM
    number = int(process or 0)
    if number >= nr_made:
        there = "none" if nr_made == 0 else f"0 to {nr_made - 1}"
        raise ValueError(f"process: {number} is not one of this machine's ({there})")
    if not state.mm[number + 1].alive:
        raise ValueError(f"process: {number} has ended")
    return number + 1


def _find_cpu(state: "State", mm_index: int, cpu: int | None) -> int:
    nr_cpus = int(state.knob[Knob.NR_CPUS])
    if cpu is not None and cpu >= nr_cpus:
        raise ValueError(f"cpu: {cpu} is not one of this machine's (0 to {nr_cpus - 1})")
    if cpu is not None:
        return cpu
    for index in range(int(state.knob[Knob.NR_WORKS])):
        if mm_index != INIT_MM and state.work[index].mm == mm_index:
            return int(state.work[index].cpu)
    return 0


def _slug(name: str) -> str:
    return name.strip("%").replace(" ", "-").replace("_", "-").lower()


def _map_arguments(spec: "MachineSpec") -> tuple[str, PagingMode, int, int]:
    mode = next(number for number, mode in PAGING_MODES.items() if mode.name == spec.hw.paging)
    return spec.hw.era, mode, spec.hw.page_offset, spec.memory_bytes


def _find_address(spec: "MachineSpec", state: "State", mm_index: int, question: Question) -> int:
    """Return the unsigned address. Raises ValueError if it is wider than the mode's, or nothing has the name."""
    base = question.base
    if base == FIRST:
        index = NIL if mm_index == INIT_MM else int(state.mm[mm_index].first_vma)
        if index == NIL:
            raise ValueError(f"address: {FIRST}: there is no memory of a process")
        base = int(state.vma[index].start)
    if isinstance(base, str):
        starts = {_slug(region.name): region.start for region in regions(*_map_arguments(spec))}
        if base not in starts:
            raise ValueError(f"address: {base!r} is not a number, nor one of {FIRST}, {', '.join(starts)}")
        base = starts[base]
    return base + question.offset


def _region(spec: "MachineSpec", address: int) -> Region:
    return region_of(address, *_map_arguments(spec))


# --- what is said of them -------------------------------------------------------------------------------


def _describe_machine(spec: "MachineSpec") -> dict[str, Any]:
    return {
        "processor": spec.hw.processor,
        "memory_bytes": spec.memory_bytes,
        "cpus": spec.cpus,
        "paging": spec.hw.paging,
        "pcid": spec.hw.pcid,
        "pti": spec.hw.pti,
        "physical_bits": spec.hw.physical_bits,
        "refill": spec.tlb.refill,
        "era": spec.hw.era,
        "guest": spec.is_guest,
    }


def _describe_region(region: Region, mode: Mode) -> dict[str, Any]:
    return {
        "name": str(region.name),
        "first": hex_word(region.start, mode),
        "last": hex_word(region.end, mode),
        "what": region.what,
    }


def _describe_frame(state: "State", pfn: int) -> str:
    if pfn >= state.knob[Knob.NR_FRAMES]:
        return "behind the memory"
    flags = int(state.page[pfn].page_flags)
    other = "in use" if state.page[pfn].refcount else "free"
    return next((what for flag, what in _FRAME_KINDS.items() if flags & flag), other)


def _read_registers(place: Place) -> dict[str, Any]:
    """Return the registers that decide about a translation, raw and taken apart."""
    record = place.registers
    cr3 = int(record.cr3)
    has_pcids = bool(int(record.cr4) & Cr4.PCIDE)
    found: dict[str, Any] = {
        "cr0": f"{int(record.cr0):#x}",
        "cr0_bits": [bit.name for bit in Cr0 if int(record.cr0) & bit],
        "cr3": hex_word(cr3, place.mode),
        "root_frame": f"{cr3 >> PAGE_SHIFT:#x}",
        "cr4": f"{int(record.cr4):#x}",
        "cr4_bits": [bit.name for bit in Cr4 if int(record.cr4) & bit],
        "efer": f"{int(record.efer):#x}",
        "efer_bits": [bit.name for bit in Efer if int(record.efer) & bit],
        "pkru": f"{int(record.pkru):#x}",
        "pat": hex_word(int(record.pat), PAGING_MODES[PagingMode.LEVEL_4]),
        "cpl": int(record.cpl),
        "ac": int(record.ac),
        "pcid": cr3 & PAGE_OFFSET_MASK if has_pcids else None,
        "pti_copy": None,
        "asid": None,
    }
    if place.state.knob[Knob.PTI]:
        found["pti_copy"] = USER if cr3 & USER_PGD_BIT else KERNEL
    if found["pcid"]:
        asid = (found["pcid"] & ~USER_PCID_BIT) - 1
        found["asid"] = asid if asid < NR_ASIDS else None
    return found


def _counters(state: "State") -> dict[str, int]:
    values = {event.name.lower(): int(state.hw_event[event]) for event in HwEvent if event != HwEvent.NR}
    return values | {
        event.name.lower(): int(state.vm_event[event]) for event in VmEvent if event != VmEvent.NR
    }


def _note_changes(levels: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Note which bits of the entries the access has set."""
    for row, changed in zip(levels, after, strict=False):
        row["value_after"] = changed["value"]
        row["set_by_access"] = [
            name for name, bit in changed.get("bits", {}).items() if bit and not row["bits"].get(name, 0)
        ]
