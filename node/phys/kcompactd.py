"""kcompactd: compaction in the background, so that tasks find blocks and need not make them.

    kswapd, balanced for an order, goes to sleep ----------+
    kswapd has ended a boost: pageblocks (order 9) --------+--> the largest order asked for, in every zone
    a request that cannot wait finds memory, in pieces ----+

It is woken only if compaction could begin in some zone. A zone in which it fails is deferred, as for a task. It gives
the processor back between two batches of 32 pages when its slice is over, and keeps its place and the free frames
that it has isolated in a record of its own.

Linux: mm/compaction.c (kcompactd, kcompactd_do_work, kcompactd_node_suitable, wakeup_kcompactd).
# Differs from Linux: one kcompactd for all nodes, as there is one kswapd, and for all zones. It does not compact
proactively (vm.compaction_proactiveness), so it has no timer and sleeps until it is woken.
"""

from typing import TYPE_CHECKING

from node.counters import Current, VmEvent
from node.joints import begin_background_zone, compact_slice
from node.kthread import ASLEEP, Kthread
from node.phys.compact_control import Compactor, CompactResult
from node.phys.compact_suitable import compaction_suitable
from node.phys.zone import ZoneId
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _is_suitable(state: "State", order: int) -> int:
    """Return whether compaction could begin in some zone (kcompactd_node_suitable)."""
    for zone in range(len(state.zone)):
        if (
            state.zone[zone].present
            and compaction_suitable(state, zone, order, 0, ZoneId.MOVABLE) == CompactResult.CONTINUE
        ):
            return 1
    return 0


@entry
def wakeup_kcompactd(state: "State", order: int) -> int:
    """Let kcompactd make a block of 2**order frames, if it sleeps and there is a zone where it could; return 0.

    The order is remembered anyway. Order 0 needs no compaction.
    """
    thread = state.kthread[Kthread.KCOMPACTD]
    thread.order = max(thread.order, order)
    if order and thread.clock_ps == ASLEEP and _is_suitable(state, order):
        thread.clock_ps = state.current[Current.CLOCK_PS]
    return 0


@kernel
def _begin_next_zone(state: "State") -> int:
    """Go to the next zone in which there is something to do; return 0 if there is none."""
    control = state.compact_control[Compactor.KCOMPACTD]
    while control.next_zone < len(state.zone):
        zone = control.next_zone
        control.next_zone += 1
        begin_background_zone(state, zone, control.order)
        if control.is_at_work:
            return 1
    return 0


@kernel
def _begin_work(state: "State") -> None:
    control = state.compact_control[Compactor.KCOMPACTD]
    control.order = state.kthread[Kthread.KCOMPACTD].order
    control.next_zone = 0
    control.is_awake = 1
    state.vm_event[VmEvent.COMPACT_DAEMON_WAKE] += 1


@kernel
def _end_work(state: "State") -> None:
    """Sleep, or begin again if a larger block was asked for meanwhile."""
    control = state.compact_control[Compactor.KCOMPACTD]
    thread = state.kthread[Kthread.KCOMPACTD]
    control.is_awake = 0
    if thread.order <= control.order:
        thread.order = 0


@entry
def kcompactd_slice(state: "State", limit_ps: int) -> int:
    """Run kcompactd from Current.CLOCK_PS until its clock passes ``limit_ps`` or it sleeps; return 0.

    Its kthread record gets the time at which it runs next: ASLEEP, or now.
    """
    control = state.compact_control[Compactor.KCOMPACTD]
    thread = state.kthread[Kthread.KCOMPACTD]
    while state.current[Current.CLOCK_PS] < limit_ps:
        if not control.is_awake:
            if thread.order == 0:
                break
            _begin_work(state)
        if control.is_at_work:
            compact_slice(state, limit_ps)
        elif not _begin_next_zone(state):
            _end_work(state)
    is_done = not control.is_awake and thread.order == 0
    thread.clock_ps = ASLEEP if is_done else state.current[Current.CLOCK_PS]
    return 0
