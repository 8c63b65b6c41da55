"""Reclaim: when memory is looked for, by whom, and how hard.

    free pages
      high  ------------------------------------ kswapd goes to sleep
      low   ------- an allocation wakes kswapd - which runs beside the tasks
      min   ------- an allocation reclaims itself, and waits for what it does

Both scan with rising pressure, from priority 12, 1/4096 of the lists, until they have enough. If all of it
brings a task nothing, and no write is under way that could, the OOM killer decides (node/reclaim/oom.py).

kswapd stops between batches of 32 pages when its slice is over. Balanced, it naps for 100 ms, in which the
next allocation finds it at hand, and then sleeps.

Linux: mm/vmscan.c (balance_pgdat, kswapd, wakeup_kswapd, do_try_to_free_pages, reclaim_throttle),
mm/page_alloc.c (should_reclaim_retry).
# Differs from Linux: one kswapd for all nodes; no slab shrinkers. For a boost alone Linux reclaims file pages, and
there are none yet. Where a task would reclaim again and again without result, it waits for the oldest write
meanwhile.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, VmEvent, VmStat
from node.joints import (
    end_page_writebacks,
    reset_isolation_suitable,
    sleep_until_written,
    wakeup_kcompactd,
)
from node.kthread import ASLEEP, Kthread
from node.phys.gfp import gfp_zone
from node.phys.pcp import COSTLY_ORDER
from node.phys.pcp_batch import set_reclaim_active
from node.phys.watermarks import high_mark, watermark_ok
from node.phys.zone import PAGEBLOCK_ORDER
from node.reclaim.lru import LruList
from node.reclaim.oom import out_of_memory
from node.reclaim.scan_control import (
    DEF_PRIORITY,
    SWAP_CLUSTER_MAX,
    KswapdPhase,
    Reclaimer,
    high_watermarks,
    nr_free_swap,
    start_pass,
)
from node.reclaim.shrink import age_active_list, end_pass, shrink_batch
from shared.constants import PS_PER_MS
from shared.gfp_flags import Gfp
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

MAX_RECLAIM_RETRIES: Final = 16
NAP_PS: Final = 100 * PS_PER_MS  # HZ/10
WRITEBACK_TIMEOUT_PS: Final = 100 * PS_PER_MS  # HZ/10
NO_PROGRESS_TIMEOUT_PS: Final = 4 * PS_PER_MS  # one jiffy, at Debian's HZ=250
COMPACT_GAP: Final = 2  # pages of an order that make it worth while to look at order 0 only


# --- watermarks ---------------------------------------------------------------------------------------


@kernel
def balanced(state: "State", order: int, highest: int) -> int:
    """Return whether some zone of those for ``highest`` is above high for blocks of 2**order (pgdat_balanced)."""
    any_managed = 0
    for zone in range(len(state.zone)):
        if state.zone[zone].managed != 0 and state.zone[zone].kind <= highest:
            any_managed = 1
            if watermark_ok(state, zone, order, high_mark(state, zone), highest):
                return 1
    return 0 if any_managed else 1


@kernel
def watermarks_boosted(state: "State") -> int:
    """Return whether fragmentation has raised the watermarks of some zone."""
    for zone in range(len(state.zone)):
        if state.zone[zone].boost != 0:
            return 1
    return 0


@kernel
def _note_boosts(state: "State") -> None:
    for zone in range(len(state.zone)):
        state.zone[zone].boost_seen = state.zone[zone].boost


@kernel
def _end_boosts(state: "State") -> None:
    """Take back the boosts that kswapd was at work for, and let kcompactd mend what they stood for (balance_pgdat)."""
    boosted = 0
    for index in range(len(state.zone)):
        zone = state.zone[index]
        boosted |= zone.boost_seen
        zone.boost -= min(zone.boost, zone.boost_seen)
        zone.boost_seen = 0
    if boosted:
        wakeup_kcompactd(state, PAGEBLOCK_ORDER)


@kernel
def _nr_reclaimable(state: "State") -> int:
    if nr_free_swap(state) == 0:
        return 0
    return state.lru[LruList.INACTIVE_ANON].nr_pages + state.lru[LruList.ACTIVE_ANON].nr_pages


# --- kswapd -------------------------------------------------------------------------------------------


@entry
def wake_kswapd(state: "State", order: int, gfp: int) -> int:
    """Let kswapd run as soon as the clock allows, unless it is awake, or hopeless, or has nothing to do; return 0.

    Then memory is in pieces perhaps: for a request that does not compact itself, kcompactd looks into that.
    """
    thread = state.kthread[Kthread.KSWAPD]
    thread.order = max(thread.order, order)
    thread.highest_zone = max(thread.highest_zone, gfp_zone(gfp))
    control = state.scan_control[Reclaimer.KSWAPD]
    if control.phase > KswapdPhase.NAPPING:
        return 0
    if thread.failures < MAX_RECLAIM_RETRIES and (
        watermarks_boosted(state) or not balanced(state, order, gfp_zone(gfp))
    ):
        thread.clock_ps = min(thread.clock_ps, state.current[Current.CLOCK_PS])
    elif not gfp & Gfp.DIRECT_RECLAIM:
        wakeup_kcompactd(state, order)
    return 0


@kernel
def _start_balancing(state: "State") -> None:
    control = state.scan_control[Reclaimer.KSWAPD]
    thread = state.kthread[Kthread.KSWAPD]
    state.vm_event[VmEvent.PAGEOUTRUN] += 1
    control.priority = DEF_PRIORITY
    control.nr_reclaimed = 0
    control.order = thread.order
    control.alloc_order = thread.order
    thread.order = 0
    if thread.highest_zone != 0:
        control.highest_zone = thread.highest_zone
        thread.highest_zone = 0
    control.phase = KswapdPhase.STARTING
    _note_boosts(state)
    set_reclaim_active(state, 1)


@kernel
def _sleep_of_kswapd(state: "State", end_ps: int) -> None:
    """Move kswapd's clock to ``end_ps``, without counting that time as busy."""
    state.kthread[Kthread.KSWAPD].busy_ps -= end_ps - state.current[Current.CLOCK_PS]
    state.current[Current.CLOCK_PS] = end_ps


@kernel
def _may_sleep(state: "State") -> int:
    control = state.scan_control[Reclaimer.KSWAPD]
    if state.kthread[Kthread.KSWAPD].failures >= MAX_RECLAIM_RETRIES:
        return 1
    if not balanced(state, control.order, control.highest_zone):
        return 0
    control.node_writeback = 0
    return 1


@kernel
def _nap_or_go_on(state: "State") -> None:
    control = state.scan_control[Reclaimer.KSWAPD]
    set_reclaim_active(state, 0)
    _end_boosts(state)
    if _may_sleep(state):
        reset_isolation_suitable(state)
        gave_up = control.order < control.alloc_order
        wakeup_kcompactd(state, control.alloc_order if gave_up else state.kthread[Kthread.KSWAPD].order)
        control.phase = KswapdPhase.NAPPING
        control.nap_end_ps = state.current[Current.CLOCK_PS] + NAP_PS
        _sleep_of_kswapd(state, control.nap_end_ps)
    else:
        state.vm_event[VmEvent.KSWAPD_HIGH_WMARK_HIT_QUICKLY] += 1
        _start_balancing(state)


@kernel
def _end_nap(state: "State") -> None:
    """Sleep until woken, or start again: the nap was cut short, or memory is short at its end."""
    control = state.scan_control[Reclaimer.KSWAPD]
    if state.current[Current.CLOCK_PS] < control.nap_end_ps:
        state.vm_event[VmEvent.KSWAPD_LOW_WMARK_HIT_QUICKLY] += 1
        _start_balancing(state)
    elif _may_sleep(state):
        control.phase = KswapdPhase.SLEEPING
    else:
        state.vm_event[VmEvent.KSWAPD_HIGH_WMARK_HIT_QUICKLY] += 1
        _start_balancing(state)


@kernel
def _start_pass_of_kswapd(state: "State") -> None:
    control = state.scan_control[Reclaimer.KSWAPD]
    if balanced(state, control.order, control.highest_zone):
        _nap_or_go_on(state)
        return
    age_active_list(state)
    control.nr_to_reclaim = high_watermarks(state, SWAP_CLUSTER_MAX)
    start_pass(state, Reclaimer.KSWAPD)
    control.phase = KswapdPhase.SHRINKING


@kernel
def _throttle_kswapd(state: "State") -> None:
    """Wait for the device if pages come round faster than it writes them."""
    control = state.scan_control[Reclaimer.KSWAPD]
    if control.nr_writeback != 0 and control.nr_writeback == control.nr_taken:
        control.node_writeback = 1
    if control.nr_immediate != 0:
        begin_ps = state.current[Current.CLOCK_PS]
        sleep_until_written(state, SWAP_CLUSTER_MAX + 1, WRITEBACK_TIMEOUT_PS)
        state.kthread[Kthread.KSWAPD].busy_ps -= state.current[Current.CLOCK_PS] - begin_ps


@kernel
def _end_pass_of_kswapd(state: "State") -> None:
    control = state.scan_control[Reclaimer.KSWAPD]
    end_pass(state, Reclaimer.KSWAPD)
    _throttle_kswapd(state)
    if control.pass_reclaimed != 0:
        state.kthread[Kthread.KSWAPD].failures = 0
    if control.order != 0 and control.nr_reclaimed >= COMPACT_GAP << control.order:
        control.order = 0
    if control.nr_scanned < control.nr_to_reclaim or control.pass_reclaimed == 0:
        control.priority -= 1
    control.phase = KswapdPhase.STARTING
    if control.priority == 0:
        if control.nr_reclaimed == 0:
            state.kthread[Kthread.KSWAPD].failures += 1
        _nap_or_go_on(state)


@kernel
def _kswapd_step(state: "State") -> None:
    phase = state.scan_control[Reclaimer.KSWAPD].phase
    if phase == KswapdPhase.SLEEPING:
        _start_balancing(state)
    elif phase == KswapdPhase.NAPPING:
        _end_nap(state)
    elif phase == KswapdPhase.STARTING:
        _start_pass_of_kswapd(state)
    elif not shrink_batch(state, Reclaimer.KSWAPD):
        _end_pass_of_kswapd(state)


@entry
def kswapd_slice(state: "State", limit_ps: int) -> int:
    """Run kswapd from Current.CLOCK_PS until its clock passes ``limit_ps`` or it sleeps; return 0.

    Its kthread record gets the time at which it runs next: ASLEEP, the end of its nap, or now.
    """
    control = state.scan_control[Reclaimer.KSWAPD]
    state.current[Current.MEMALLOC] = 1
    end_page_writebacks(state)
    _kswapd_step(state)
    while control.phase != KswapdPhase.SLEEPING and state.current[Current.CLOCK_PS] < limit_ps:
        _kswapd_step(state)
    state.current[Current.MEMALLOC] = 0
    asleep = control.phase == KswapdPhase.SLEEPING
    state.kthread[Kthread.KSWAPD].clock_ps = ASLEEP if asleep else state.current[Current.CLOCK_PS]
    return 0


# --- direct reclaim -----------------------------------------------------------------------------------


@kernel
def _throttle_without_progress(state: "State") -> None:
    """Wait a jiffy if most of what could be reclaimed is being written."""
    if state.kthread[Kthread.KSWAPD].failures >= MAX_RECLAIM_RETRIES:
        return
    reclaimable = _nr_reclaimable(state)
    if reclaimable == 0:
        reclaimable = state.vm_stat[VmStat.NR_FREE_PAGES]
    if 2 * state.vm_stat[VmStat.NR_WRITEBACK] > reclaimable:
        sleep_until_written(state, len(state.writeback) + 1, NO_PROGRESS_TIMEOUT_PS)


@kernel
def _scan_all_priorities(state: "State") -> None:
    control = state.scan_control[Reclaimer.DIRECT]
    state.vm_event[VmEvent.ALLOCSTALL_DMA + control.highest_zone] += 1
    for step in range(DEF_PRIORITY + 1):
        control.priority = DEF_PRIORITY - step
        start_pass(state, Reclaimer.DIRECT)
        if control.left_inactive != 0:
            while shrink_batch(state, Reclaimer.DIRECT):
                pass
        end_pass(state, Reclaimer.DIRECT)
        if control.pass_reclaimed != 0:
            state.kthread[Kthread.KSWAPD].failures = 0
        if control.priority == 1 and control.nr_reclaimed == 0:
            _throttle_without_progress(state)
        if control.nr_reclaimed >= control.nr_to_reclaim:
            break


@kernel
def _try_to_free_pages(state: "State", order: int, gfp: int) -> int:
    """Reclaim at least 32 pages if possible; return how many it was."""
    control = state.scan_control[Reclaimer.DIRECT]
    control.nr_to_reclaim = SWAP_CLUSTER_MAX
    control.nr_reclaimed = 0
    control.order = order
    control.highest_zone = gfp_zone(gfp)
    control.force_deactivate = 0
    control.skipped_deactivate = 0
    _scan_all_priorities(state)
    if control.nr_reclaimed == 0 and control.skipped_deactivate:
        control.force_deactivate = 1
        _scan_all_priorities(state)
    return control.nr_reclaimed


@kernel
def _worth_another_try(state: "State") -> int:
    """Return whether the request could be served if all that is reclaimable were (should_reclaim_retry)."""
    reserve = 0
    for zone in range(len(state.zone)):
        reserve += state.zone[zone].min_wmark
    return 1 if state.vm_stat[VmStat.NR_FREE_PAGES] + _nr_reclaimable(state) > reserve else 0


@entry
def direct_reclaim(state: "State", order: int, gfp: int) -> int:
    """Reclaim on behalf of the current task, or let the OOM killer; return 1 if another try is worth while.

    All of its time counts as stall. 0 means that nothing came back: the request fails, and if its task was
    chosen by the OOM killer, ``mm.oom_victim`` is set.
    """
    begin_ps = state.current[Current.CLOCK_PS]
    stall_ps = state.current[Current.STALL_PS]
    state.current[Current.MEMALLOC] = 1
    progress = 0
    may_fail = 1 if gfp & (Gfp.NORETRY | Gfp.RETRY_MAYFAIL) or order > COSTLY_ORDER else 0
    for _ in range(MAX_RECLAIM_RETRIES):
        progress = _try_to_free_pages(state, order, gfp)
        if progress or may_fail or not _worth_another_try(state):
            break
        if state.vm_stat[VmStat.NR_WRITEBACK] != 0:
            sleep_until_written(state, 1, WRITEBACK_TIMEOUT_PS)
    state.current[Current.MEMALLOC] = 0
    state.current[Current.STALL_PS] = stall_ps + state.current[Current.CLOCK_PS] - begin_ps
    if progress:
        return 1
    return 0 if may_fail else out_of_memory(state)
