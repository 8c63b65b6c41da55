"""What switches and shootdowns cost: two processes that take turns on a CPU, and a flush on many CPUs.

Each figure has two sides: what the simulated machine pays, and what simulating it takes. A turn is a switch to
the other process, and a read of each of its pages: together they fit into the second-level TLB, so with PCIDs
nothing is walked for again. A shootdown is the flush of one page of an address space that every CPU has loaded
and runs in user mode.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.kernels import first_touch
from benchmarks.program import Figure
from benchmarks.translation import SPARE_BYTES
from node.build import build_state
from node.counters import Current, HwEvent
from node.fault.access import touch
from node.joints import flush_tlb_range, run_in_user_mode
from node.spec import MachineSpec
from node.touch import become
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from shared.constants import NS_PER_US, PAGE_SHIFT, PAGE_SIZE, PS_PER_NS
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State

NR_PAGES: Final = 512  # of each of the two processes
NR_TURNS: Final = 2000
CPU_COUNTS: Final = (2, 8, 16, 32, 64)
NR_FLUSHES: Final = 20_000  # interrupts in all, whatever the number of CPUs
REPETITIONS: Final = 5  # of which the fastest counts
FIRST_MM: Final = 1
NR_PROCESSES: Final = 2


@dataclass(frozen=True)
class Turn:
    """A switch to the other process and a touch of each of its pages."""

    switch_ns: float  # simulated, of the switch alone
    simulated_ns: float
    walks: float
    real_ns: float


@dataclass(frozen=True)
class Shootdown:
    """A flush of one page on every CPU."""

    sender_ns: float  # simulated, until the CPU that asked for it goes on
    all_cpus_ns: float  # simulated, the time that all CPUs together spend on it
    real_ns: float


@entry
def take_turns(state: "State", first_mm: int, vaddr: int, nr_pages: int, nr_turns: int) -> int:
    """Let process ``first_mm`` and the one made after it take turns; return the simulated time of the switches, ps.

    In each turn a process reads its ``nr_pages`` from ``vaddr`` on.
    """
    switching_ps = 0
    for turn in range(nr_turns):
        mm_index = first_mm + turn % NR_PROCESSES
        begin_ps = state.current[Current.CLOCK_PS]
        state.current[Current.MM] = mm_index
        run_in_user_mode(state, mm_index)
        switching_ps += state.current[Current.CLOCK_PS] - begin_ps
        for page in range(nr_pages):
            touch(state, mm_index, vaddr + (page << PAGE_SHIFT), 0)
    return switching_ps


@entry
def shoot_down(state: "State", mm_index: int, vaddr: int, nr_pages: int, nr_flushes: int) -> int:
    """Flush one page after the other of ``nr_pages``, again and again; return 0."""
    page = 0
    for _ in range(nr_flushes):
        start = vaddr + (page << PAGE_SHIFT)
        flush_tlb_range(state, mm_index, start, start + PAGE_SIZE, 0)
        page += 1
        if page == nr_pages:
            page = 0
    return 0


def _with_pages(state: "State", mm_index: int, nr_pages: int) -> int:
    """Let the current CPU run a process, and give it pages in memory; return the address of the first."""
    become(state, mm_index)
    start = mmap(state, mm_index, nr_pages << PAGE_SHIFT, VmFlag.READ | VmFlag.WRITE)
    first_touch(state, mm_index, start, nr_pages)
    return start


def _walks(state: "State") -> int:
    return int(state.hw_event[HwEvent.TLB_WALK]) + int(state.hw_event[HwEvent.ITLB_WALK])


def turn_cost(*, pcid: bool, nr_turns: int = NR_TURNS, nr_pages: int = NR_PAGES) -> Turn:
    """Measure a turn of two processes with ``nr_pages`` each, once the TLBs hold what they can."""
    state = build_state(MachineSpec(memory_bytes=SPARE_BYTES).with_hw(pcid=pcid))
    # Two new address spaces, alike: their areas are at the same address.
    first, second = new_mm(state), new_mm(state)
    vaddr = _with_pages(state, first, nr_pages)
    _with_pages(state, second, nr_pages)
    take_turns(state, FIRST_MM, vaddr, nr_pages, NR_PROCESSES)
    clock_ps, walks = int(state.current[Current.CLOCK_PS]), _walks(state)
    switching_ps = 0
    spent_ns = []
    for _ in range(REPETITIONS):
        begin = time.thread_time_ns()
        switching_ps += take_turns(state, FIRST_MM, vaddr, nr_pages, nr_turns)
        spent_ns.append(time.thread_time_ns() - begin)
    all_turns = REPETITIONS * nr_turns
    return Turn(
        switch_ns=switching_ps / all_turns / PS_PER_NS,
        simulated_ns=(int(state.current[Current.CLOCK_PS]) - clock_ps) / all_turns / PS_PER_NS,
        walks=(_walks(state) - walks) / all_turns,
        real_ns=min(spent_ns) / nr_turns,
    )


def _clocks_ps(state: "State") -> list[int]:
    """Return the clocks of all CPUs; CPU 0 is the current one, whose clock its task has."""
    others = [int(state.cpu[cpu].clock_ps) for cpu in range(1, len(state.cpu))]
    return [int(state.current[Current.CLOCK_PS]), *others]


def shootdown_cost(nr_cpus: int, nr_flushes: int, nr_pages: int = NR_PAGES) -> Shootdown:
    """Measure a flush of one page by CPU 0 while all ``nr_cpus`` run the same address space."""
    state = build_state(MachineSpec(memory_bytes=SPARE_BYTES, cpus=nr_cpus))
    vaddr = _with_pages(state, new_mm(state), nr_pages)
    for cpu in range(nr_cpus - 1, -1, -1):
        state.current[Current.CPU] = cpu
        become(state, FIRST_MM)
    before_ps = _clocks_ps(state)
    spent_ns = []
    for _ in range(REPETITIONS):
        begin = time.thread_time_ns()
        shoot_down(state, FIRST_MM, vaddr, nr_pages, nr_flushes)
        spent_ns.append(time.thread_time_ns() - begin)
    all_flushes = REPETITIONS * nr_flushes
    spent_ps = [after - before for before, after in zip(before_ps, _clocks_ps(state), strict=True)]
    return Shootdown(
        sender_ns=spent_ps[0] / all_flushes / PS_PER_NS,
        all_cpus_ns=sum(spent_ps) / all_flushes / PS_PER_NS,
        real_ns=min(spent_ns) / nr_flushes,
    )


def switching_figures() -> list[Figure]:
    """Return all figures of this module; none has a limit."""
    figures = []
    for pcid in (True, False):
        name = f"2 x {NR_PAGES} pages, PCID {'on' if pcid else 'off'}"
        turn = turn_cost(pcid=pcid)
        figures += [
            Figure(f"{name}: a switch", turn.switch_ns / NS_PER_US, None, "us simulated"),
            Figure(f"{name}: with all touches", turn.simulated_ns / NS_PER_US, None, "us simulated"),
            Figure(f"{name}: simulating that", turn.real_ns, None, "ns"),
            Figure(f"{name}: walks", turn.walks, None, "a switch"),
        ]
    for nr_cpus in CPU_COUNTS:
        name = f"shootdown, {nr_cpus} CPUs"
        flush = shootdown_cost(nr_cpus, NR_FLUSHES // nr_cpus)
        figures += [
            Figure(f"{name}: who asks for it", flush.sender_ns / NS_PER_US, None, "us simulated"),
            Figure(f"{name}: all together", flush.all_cpus_ns / NS_PER_US, None, "us simulated"),
            Figure(f"{name}: simulating that", flush.real_ns, None, "ns"),
        ]
    return figures
