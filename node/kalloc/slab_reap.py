"""SLAB: cache_reap, by which memory that caches no longer need comes back without anybody asking.

Every two seconds, on each CPU, for each cache:

    the CPU's array       not used since the last time: a fifth of its limit goes back to the slabs
    and, every four seconds for each node:
    the shared array      the same
    the free slabs        not needed since the last time: give back as many as hold a fifth of free_limit

So a cache that rests loses its objects within some twenty seconds, and one that is in use loses none. The CPUs
take turns three ticks apart, the caches' nodes are spread over four seconds by the caches' numbers.

Linux: mm/slab.c (cache_reap, start_cpu_timer, REAPTIMEOUT_AC, REAPTIMEOUT_NODE), kernel/time/timer.c
(round_jiffies_relative: whole seconds).
# Differs from Linux: caches are spread by their number, not by the address of their descriptor.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.kalloc.kmem_cache import MAX_CACHES
from node.kalloc.slab_array import REAP_SHARE, cpu_array, drain_if_idle, shared_array
from node.kalloc.slab_lists import give_back_slab, slab_node_index
from node.kalloc.slab_nodes import nid_here
from node.kthread import ASLEEP, Kthread
from shared.constants import PS_PER_MS, PS_PER_S
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

SLAB_REAPER = np.dtype(
    [
        ("next_ps", np.int64),  # when a CPU's reap_work runs next
        ("nr_runs", np.int64),
    ],
    align=True,
)

TICK_PS: Final = 4 * PS_PER_MS  # HZ is 250, as in Debian's kernels
TICKS_BETWEEN_CPUS: Final = 3  # round_jiffies: each CPU is skewed by so many
FIRST_RUN_PS: Final = PS_PER_S  # HZ
ARRAY_PERIOD_PS: Final = 2 * PS_PER_S  # REAPTIMEOUT_AC
NODE_PERIOD_PS: Final = 4 * PS_PER_S  # REAPTIMEOUT_NODE
_NODE_PERIOD_TICKS: Final = NODE_PERIOD_PS // TICK_PS


@kernel
def first_reap_ps(state: "State", cache: int) -> int:
    """Return when a new cache's slabs are looked at first: in four seconds and up to four more."""
    return state.current[Current.CLOCK_PS] + NODE_PERIOD_PS + (cache % _NODE_PERIOD_TICKS) * TICK_PS


@kernel
def start_reaping(state: "State") -> None:
    """Set the CPUs' timers when the machine's first cache is made."""
    thread = state.kthread[Kthread.SLAB_REAP]
    if thread.clock_ps != ASLEEP:
        return
    first_ps = state.current[Current.CLOCK_PS] + FIRST_RUN_PS
    for cpu in range(state.knob[Knob.NR_CPUS]):
        state.slab_reaper[cpu].next_ps = first_ps + cpu * TICKS_BETWEEN_CPUS * TICK_PS
    thread.clock_ps = first_ps


@kernel
def _reap_node(state: "State", cache: int, nid: int) -> None:
    index = slab_node_index(state, cache, nid)
    node = state.slab_node[index]
    if node.next_reap_ps > state.current[Current.CLOCK_PS]:
        return
    node.next_reap_ps = state.current[Current.CLOCK_PS] + NODE_PERIOD_PS
    drain_if_idle(state, cache, shared_array(state, cache, nid))
    if node.free_touched:
        node.free_touched = 0
        return
    share = REAP_SHARE * state.kmem_cache[cache].objects_per_slab
    for _ in range((node.free_limit + share - 1) // share):
        if give_back_slab(state, index) == 0:
            break
        state.slab_cache[cache].reaped += 1


@kernel
def cache_reap(state: "State") -> None:
    """Give back what the current CPU's caches do not need, once."""
    nid = nid_here(state)
    for cache in range(1, MAX_CACHES):
        if state.kmem_cache[cache].object_size == 0:
            continue
        state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_REAP]
        drain_if_idle(state, cache, cpu_array(state, cache))
        _reap_node(state, cache, nid)


@kernel
def _next_cpu(state: "State") -> int:
    found = 0
    for cpu in range(1, state.knob[Knob.NR_CPUS]):
        if state.slab_reaper[cpu].next_ps < state.slab_reaper[found].next_ps:
            found = cpu
    return found


@entry
def slab_reap_slice(state: "State", limit_ps: int) -> int:
    """Run the reap work of every CPU that is due before ``limit_ps``, then sleep until the next; return 0."""
    while True:
        cpu = _next_cpu(state)
        reaper = state.slab_reaper[cpu]
        if reaper.next_ps >= limit_ps:
            break
        state.current[Current.CPU] = cpu
        # Another CPU's work, or a machine that is started late, may have passed its time.
        due_ps = max(state.current[Current.CLOCK_PS], reaper.next_ps)
        state.current[Current.CLOCK_PS] = due_ps
        cache_reap(state)
        reaper.nr_runs += 1
        reaper.next_ps = due_ps + ARRAY_PERIOD_PS
    state.kthread[Kthread.SLAB_REAP].clock_ps = reaper.next_ps
    return 0
