"""The order in which a machine's CPUs and kernel threads run: whoever is furthest behind in time is next.

    CPU 0      |====|      |======|              each runs until it is ``quantum`` ahead of
    CPU 1           |=====|                      the one that is now furthest behind
    ksmd       ^wakes here           |===|
               -------------------------------> simulated time

At equal times kernel threads go first, then the lower CPU. So the interleaving depends on nothing but the
state. The processes of one CPU take turns of one time slice. A CPU that owes stall (what the host added to
what was estimated) does nothing until it is served; one without work idles to the end.

# Differs from Linux: a workload stays on its CPU, and slices have one length, whatever the number that wait.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.joints import go_idle, run_in_user_mode, run_kthreads
from node.kthread import kthread_clock
from node.work import is_runnable, run_work
from shared.constants import NIL, PS_PER_MS, PS_PER_US
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

DEFAULT_QUANTUM_PS: Final = 10 * PS_PER_US
# CFS gives each of two tasks half of sched_latency, 6 ms (kernel/sched/fair.c).
DEFAULT_TIME_SLICE_PS: Final = 3 * PS_PER_MS


@kernel
def _cpu_furthest_behind(state: "State") -> int:
    found = 0
    for cpu in range(1, state.knob[Knob.NR_CPUS]):
        if state.cpu[cpu].clock_ps < state.cpu[found].clock_ps:
            found = cpu
    return found


@kernel
def _others_clock(state: "State", this_cpu: int) -> int:
    """Return the smallest clock of all kernel threads and CPUs but one."""
    clock_ps = kthread_clock(state, NIL)
    for cpu in range(state.knob[Knob.NR_CPUS]):
        if cpu != this_cpu:
            clock_ps = min(clock_ps, state.cpu[cpu].clock_ps)
    return clock_ps


@kernel
def _pick(state: "State", cpu_index: int) -> int:
    """Return the workload whose turn it is on a CPU, or NIL if none of its workloads can run."""
    cpu = state.cpu[cpu_index]
    if cpu.turn and cpu.clock_ps < cpu.slice_end_ps and is_runnable(state, cpu.turn - 1):
        return cpu.turn - 1
    nr_works = state.knob[Knob.NR_WORKS]
    for step in range(nr_works):
        index = (cpu.turn + step) % nr_works
        if state.work[index].cpu == cpu_index and is_runnable(state, index):
            cpu.turn = index + 1
            # The slice begins when the switch is done, so that the shortest still lets it work.
            cpu.slice_end_ps = cpu.clock_ps + state.cost[Cost.CONTEXT_SWITCH] + state.knob[Knob.TIME_SLICE_PS]
            return index
    return NIL


@kernel
def _serve_owed_stall(state: "State", cpu_index: int, end_ps: int) -> None:
    cpu = state.cpu[cpu_index]
    served_ps = min(cpu.owed_ps, end_ps - cpu.clock_ps)
    cpu.owed_ps -= served_ps
    cpu.clock_ps += served_ps
    cpu.stall_ps += served_ps


@kernel
def _run_cpu(state: "State", cpu_index: int, limit_ps: int) -> None:
    """Run one CPU, which is behind ``limit_ps``, until it passes it, or its workload's slice ends."""
    cpu = state.cpu[cpu_index]
    end_ps = state.current[Current.END_PS]
    if cpu.owed_ps > 0:
        _serve_owed_stall(state, cpu_index, end_ps)
        return
    index = _pick(state, cpu_index)
    if index == NIL:
        go_idle(state, cpu_index)
        cpu.clock_ps = end_ps
        return
    mm_index = state.work[index].mm
    state.current[Current.CPU] = cpu_index
    state.current[Current.MM] = mm_index
    state.current[Current.CLOCK_PS] = cpu.clock_ps
    state.current[Current.STALL_PS] = 0
    if mm_index:
        run_in_user_mode(state, mm_index)
    else:  # the kernel's own work runs on whatever is loaded, as a kernel thread does
        go_idle(state, cpu_index)
        state.current[Current.CLOCK_PS] = cpu.clock_ps
    run_work(state, index, min(limit_ps, cpu.slice_end_ps))
    cpu.clock_ps = state.current[Current.CLOCK_PS]
    cpu.stall_ps += state.current[Current.STALL_PS]
    if mm_index:
        state.mm[mm_index].stall_ps += state.current[Current.STALL_PS]


@entry
def run_until(state: "State", end_ps: int) -> int:
    """Run the machine until all clocks have reached ``end_ps``; return 1 if no workload can run any more.

    An operation that has begun is finished, so a clock may end beyond ``end_ps``.
    """
    state.current[Current.END_PS] = end_ps
    quantum_ps = state.knob[Knob.QUANTUM_PS]
    while True:
        cpu_index = _cpu_furthest_behind(state)
        clock_ps = state.cpu[cpu_index].clock_ps
        if clock_ps >= end_ps:
            break
        if kthread_clock(state, NIL) <= clock_ps:
            run_kthreads(state, min(end_ps, clock_ps + quantum_ps))
            continue
        # Subtracted before it is added: a thread that sleeps has the largest clock there is.
        limit_ps = min(end_ps - quantum_ps, _others_clock(state, cpu_index)) + quantum_ps
        _run_cpu(state, cpu_index, limit_ps)
    run_kthreads(state, end_ps)
    state.current[Current.MM] = 0
    for index in range(state.knob[Knob.NR_WORKS]):
        if is_runnable(state, index):
            return 0
    return 1
