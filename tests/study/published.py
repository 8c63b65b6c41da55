"""Published measurements of switches and system calls, and the same on the simulated machine.

Run it to see the table:  python -m tests.study.published

    turns   A. Lutomirski, "x86/mm: Try to preserve old TLB entries using PCID", linux-kernel, July 2017 (commit
            10af6235e0d3): a Skylake laptop, in a guest of KVM, before page-table isolation. Two processes
            wake one another on one CPU; each reads 512 pages, all of them the page of zeroes, at its turn.
            Walks are dtlb_load_misses.miss_causes_a_walk.
    calls   D. Hansen, "KAISER: unmap most of the kernel from userspace page tables", linux-kernel, 31 October
            2017: will-it-scale's lseek1, one thread, on a computer that is not named. With isolation no page
            was global.

``Cost.CONTEXT_SWITCH`` and ``Cost.SYSCALL`` are these messages' own times of a switch, and of a call without
isolation; everything else in the table follows from the model.

The simulated guest has a host that holds all of its memory, so that walks are nested and nothing else happens
to them. A call of lseek1 needs five pages of its program: its text and the C library's (fetched), the table
through which it finds that library (read), its stack and its counter (written).
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from node.build import build_state
from node.counters import Current, HwEvent
from node.fault.access import touch
from node.hw.paging import AccessKind
from node.joints import run_in_user_mode, system_call
from node.spec import MachineSpec
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from shared.constants import MIB, NIL, NS_PER_US, PAGE_SHIFT, PS_PER_NS, PS_PER_US
from shared.jit import entry
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

MILLION: Final = 1_000_000
MEMORY_BYTES: Final = 160 * MIB
NR_PAGES: Final = 512
NR_PROCESSES: Final = 2
WARM_UP: Final = 4  # turns, calls
NR_TURNS: Final = 1000
NR_CALLS: Final = 1000
TEXT_PAGES: Final = 2
DATA_PAGES: Final = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """A process's turn."""

    switch_us: float  # without the reads
    us: float
    walks: float


@dataclass(frozen=True, slots=True)
class Call:
    """A system call, and the program's accesses around it."""

    ns: float
    walks: float


# By PCID on and off. Walks were counted over a whole run whose number of turns is not told.
PUBLISHED_SWITCH_US: Final = {True: 1.22, False: 1.33}
PUBLISHED_TURN_US: Final = {True: 1.8, False: 6.2}
PUBLISHED_WALKS: Final = {True: 11_000_000, False: 207_000_000}
PUBLISHED_WALK_RATIO: Final = PUBLISHED_WALKS[False] / PUBLISHED_WALKS[True]

NO_ISOLATION: Final = "no isolation"
WITH_PCID: Final = "isolation, PCID"
WITHOUT_PCID: Final = "isolation, no PCID"
# 5.2, 3.0 and 2.2 million calls a second.
PUBLISHED_CALL_NS: Final = {NO_ISOLATION: 192, WITH_PCID: 333, WITHOUT_PCID: 455}
CALL_HARDWARE: Final[Mapping[str, Mapping[str, bool]]] = {
    NO_ISOLATION: {"pti": False},
    WITH_PCID: {"pti": True},
    WITHOUT_PCID: {"pti": True, "pcid": False, "global_pages": False},
}


@entry
def take_turns(state: "State", vaddr: int, nr_pages: int, nr_turns: int) -> int:
    """Let processes 1 and 2 take turns, each reading its ``nr_pages``; return the time of the switches in ps."""
    switching_ps = 0
    for turn in range(nr_turns):
        mm_index = 1 + turn % NR_PROCESSES
        begin_ps = state.current[Current.CLOCK_PS]
        state.current[Current.MM] = mm_index
        run_in_user_mode(state, mm_index)
        switching_ps += state.current[Current.CLOCK_PS] - begin_ps
        for page in range(nr_pages):
            touch(state, mm_index, vaddr + (page << PAGE_SHIFT), AccessKind.READ)
    return switching_ps


@entry
def call_again_and_again(state: "State", text: int, data: int, nr_calls: int) -> int:
    """Let process 1 make system calls as lseek1 does; return how many of its accesses failed."""
    nr_failed = 0
    for _ in range(nr_calls):
        for page in range(TEXT_PAGES):
            if touch(state, 1, text + (page << PAGE_SHIFT), AccessKind.EXECUTE) == NIL:
                nr_failed += 1
        for page in range(DATA_PAGES):
            kind = AccessKind.WRITE if page else AccessKind.READ
            if touch(state, 1, data + (page << PAGE_SHIFT), kind) == NIL:
                nr_failed += 1
        system_call(state, 1)
    return nr_failed


def measure_turns(*, pcid: bool) -> Turn:
    """Measure a turn on a guest, once its TLBs hold what they can."""
    spec = MachineSpec(MEMORY_BYTES, is_guest=True).with_hw(pcid=pcid, pti=False)
    state = build_state(spec)
    state.ept_view[:] = View.WRITABLE
    areas = [_area(state, new_mm(state), NR_PAGES, VmFlag.READ) for _ in range(NR_PROCESSES)]
    vaddr = areas[0]  # the address spaces are alike, so it is the same in both
    take_turns(state, vaddr, NR_PAGES, WARM_UP)
    clock_ps, walks = state.current[Current.CLOCK_PS], _walks(state)
    switching_ps = take_turns(state, vaddr, NR_PAGES, NR_TURNS)
    return Turn(
        switch_us=switching_ps / NR_TURNS / PS_PER_US,
        us=(state.current[Current.CLOCK_PS] - clock_ps) / NR_TURNS / PS_PER_US,
        walks=(_walks(state) - walks) / NR_TURNS,
    )


def measure_calls(hw: Mapping[str, bool]) -> Call:
    """Measure a system call on a machine with these keys of ``hw``, once its TLBs hold what they can."""
    state = build_state(MachineSpec(MEMORY_BYTES).with_hw(**hw))
    mm_index = new_mm(state)
    text = _area(state, mm_index, TEXT_PAGES, VmFlag.READ | VmFlag.EXEC)
    data = _area(state, mm_index, DATA_PAGES, VmFlag.READ | VmFlag.WRITE)
    state.current[Current.MM] = mm_index
    run_in_user_mode(state, mm_index)
    call_again_and_again(state, text, data, WARM_UP)
    clock_ps, walks = state.current[Current.CLOCK_PS], _walks(state)
    assert call_again_and_again(state, text, data, NR_CALLS) == 0
    return Call(
        ns=(state.current[Current.CLOCK_PS] - clock_ps) / NR_CALLS / PS_PER_NS,
        walks=(_walks(state) - walks) / NR_CALLS,
    )


def _area(state: "State", mm_index: int, nr_pages: int, vm_flags: int) -> int:
    return mmap(state, mm_index, nr_pages << PAGE_SHIFT, vm_flags)


def _walks(state: "State") -> int:
    return state.hw_event[HwEvent.TLB_WALK] + state.hw_event[HwEvent.ITLB_WALK]


def saved_ns_per_walk(turn_us: Mapping[bool, float]) -> float:
    """Return what PCID saves on each page of a turn: a walk there, less what finding the page in a TLB takes."""
    return (turn_us[False] - turn_us[True]) * NS_PER_US / NR_PAGES


def table() -> str:
    """Measure everything; lay it beside what was published, as docs/fidelity.md has it."""
    turns = {pcid: measure_turns(pcid=pcid) for pcid in (True, False)}
    calls = {name: measure_calls(hw) for name, hw in CALL_HARDWARE.items()}
    lines = ["| | published | simulated |", "|---|---|---|"]
    for pcid, turn in turns.items():
        name = "PCID" if pcid else "no PCID"
        total = f"{PUBLISHED_WALKS[pcid] // MILLION} M in all"
        lines.append(f"| walks a turn, {name} | {total} | {turn.walks:.0f} |")
    for pcid, turn in turns.items():
        name = "PCID" if pcid else "no PCID"
        lines.append(f"| switch, {name} | {PUBLISHED_SWITCH_US[pcid]:.2f} us | {turn.switch_us:.2f} us |")
    for pcid, turn in turns.items():
        name = "PCID" if pcid else "no PCID"
        lines.append(f"| turn, {name} | {PUBLISHED_TURN_US[pcid]:.1f} us | {turn.us:.1f} us |")
    there = saved_ns_per_walk(PUBLISHED_TURN_US)
    here = saved_ns_per_walk({pcid: turn.us for pcid, turn in turns.items()})
    lines.append(f"| saved on each page by PCID | {there:.1f} ns | {here:.1f} ns |")
    for name, call in calls.items():
        walks = f", {call.walks:.0f} walks" if call.walks else ""
        lines.append(f"| system call, {name} | {PUBLISHED_CALL_NS[name]} ns | {call.ns:.0f} ns{walks} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
