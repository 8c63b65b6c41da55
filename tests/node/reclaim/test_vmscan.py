"""Reclaim at work: what it takes, what it leaves, who waits, and that no content is lost."""

import random

import pytest

from node.counters import Current, Knob, VmEvent, VmStat
from node.hw.pte import Pte
from node.joints import direct_reclaim, kswapd_slice, run_kthreads, wake_kswapd
from node.kthread import ASLEEP, Kthread
from node.phys.page import PageFlag
from node.phys.zone import NR_ZONES, ZoneId
from node.reclaim.lru import LruList
from node.reclaim.scan_control import KswapdPhase, Reclaimer
from node.reclaim.vmscan import balanced
from shared.constants import PS_PER_MS, PS_PER_S
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, Gfp
from tests.models.lru import pages_on
from tests.models.swapped_machine import SwappedMachine

pytestmark = pytest.mark.three_ways

INACTIVE = LruList.INACTIVE_ANON
ACTIVE = LruList.ACTIVE_ANON


def let_kswapd_run(machine: SwappedMachine, span_ps: int = 0) -> None:
    machine.state.current[Current.CLOCK_PS] += span_ps
    run_kthreads(machine.state, machine.state.current[Current.CLOCK_PS])


def fill(machine: SwappedMachine, mm: int, pages: range) -> None:
    for page in pages:
        assert machine.write(mm, page)
        let_kswapd_run(machine)


@pytest.mark.parametrize("device", ["ssd", "hdd", "nvme"])
def test_no_page_is_lost_under_random_use_by_two_processes(device: str) -> None:
    machine = SwappedMachine(device=device)
    nr_pages = machine.nr_usable()
    processes = [machine.process(nr_pages), machine.process(nr_pages)]
    chance = random.Random(f"reclaim {device}")  # noqa: S311 # the same in every run, no secret
    for number in range(4 * nr_pages):
        mm = chance.choice(processes)
        page = min(int(chance.expovariate(3 / nr_pages)), nr_pages - 1)
        if chance.random() < 0.3:
            page = chance.randrange(nr_pages)
        if (mm, page) in machine.held and chance.random() < 0.4:
            assert machine.read(mm, page) == machine.held[mm, page]
        else:
            assert machine.write(mm, page)
        if chance.random() < 0.5:
            let_kswapd_run(machine)
        if number % nr_pages == 0:
            machine.check()
    machine.check()
    assert machine.event(VmEvent.PSWPOUT) > 0
    assert machine.event(VmEvent.PSWPIN) > 0
    assert machine.event(VmEvent.OOM_KILL) == 0


def test_pages_steal_and_scan_counts_add_up() -> None:
    machine = SwappedMachine()
    mm = machine.process(2 * machine.nr_usable())
    fill(machine, mm, range(2 * machine.nr_usable()))
    scanned = machine.event(VmEvent.PGSCAN_KSWAPD) + machine.event(VmEvent.PGSCAN_DIRECT)
    stolen = machine.event(VmEvent.PGSTEAL_KSWAPD) + machine.event(VmEvent.PGSTEAL_DIRECT)
    assert scanned == machine.event(VmEvent.PGSCAN_ANON) > 0
    assert 0 < stolen == machine.event(VmEvent.PGSTEAL_ANON) <= scanned
    assert machine.event(VmEvent.PSWPOUT) >= stolen


def test_kswapd_wakes_below_low_and_brings_memory_back_above_high() -> None:
    machine = SwappedMachine()
    state = machine.state
    mm = machine.process(4000)
    page = 0
    while state.kthread[Kthread.KSWAPD].clock_ps == ASLEEP:
        assert machine.write(mm, page)
        page += 1
    assert all(
        zone["nr_free"] <= zone["low"] + state.lowmem_reserve[zone["kind"] * NR_ZONES + ZoneId.MOVABLE] + 1
        for zone in state.zone[:2]
    )
    let_kswapd_run(machine, PS_PER_S // 20)
    assert any(zone["nr_free"] > zone["high"] for zone in state.zone[:2])
    # The first looks found every page used since its first write, and ended without result.
    assert machine.event(VmEvent.PAGEOUTRUN) == 1 + machine.event(VmEvent.KSWAPD_HIGH_WMARK_HIT_QUICKLY)
    assert state.scan_control[Reclaimer.KSWAPD].phase == KswapdPhase.NAPPING
    let_kswapd_run(machine, PS_PER_S)
    assert state.scan_control[Reclaimer.KSWAPD].phase == KswapdPhase.SLEEPING
    assert state.kthread[Kthread.KSWAPD].clock_ps == ASLEEP
    machine.check()


def test_the_oldest_unused_pages_go_first_and_used_ones_stay() -> None:
    machine = SwappedMachine()
    state = machine.state
    nr_pages = machine.nr_usable() - 100
    mm = machine.process(nr_pages + 200)
    fill(machine, mm, range(nr_pages))
    oldest = pages_on(state, INACTIVE)[:-101:-1]
    for pfn in oldest:
        state.page[pfn].page_flags |= PageFlag.REFERENCED  # one earlier look found them used
    fill(machine, mm, range(nr_pages, nr_pages + 150))
    let_kswapd_run(machine, PS_PER_S)
    assert state.vm_stat[VmStat.NR_SWAP_USED] > 0
    # All pages carry the accessed bit of their first write: the marked ones are activated, the others get
    # another round, and only then go.
    assert set(oldest) <= set(pages_on(state, ACTIVE))
    swapped = [page for page in range(nr_pages) if machine.slot(mm, page) is not None]
    assert swapped
    assert min(swapped) == 100
    machine.check()


def test_direct_reclaim_waits_and_its_time_is_stall() -> None:
    machine = SwappedMachine(device="hdd")
    state = machine.state
    mm = machine.process(6000)
    page = 0
    while machine.event(VmEvent.ALLOCSTALL_MOVABLE) == 0:  # kswapd never gets to run
        assert machine.write(mm, page)
        page += 1
    assert state.current[Current.STALL_PS] > PS_PER_MS
    assert machine.event(VmEvent.PGSTEAL_DIRECT) >= 32
    assert machine.event(VmEvent.PGSTEAL_KSWAPD) == 0
    assert state.current[Current.MEMALLOC] == 0
    machine.check()


def test_a_written_page_is_freed_on_the_pass_after_its_write() -> None:
    machine = SwappedMachine()
    state = machine.state
    mm = machine.process(400)
    fill(machine, mm, range(200))
    state.pt_word[:] = state.pt_word[:] & ~Pte.ACCESSED  # nothing was used since
    state.lru[INACTIVE].cost = 0
    before = state.vm_stat[VmStat.NR_FREE_PAGES]
    state.zone["high"][:] = 1 << 20
    wake_kswapd(state, 0, 0)
    run_kthreads(state, state.current[Current.CLOCK_PS] + PS_PER_MS // 100)
    assert state.vm_stat[VmStat.NR_WRITEBACK] > 0
    assert machine.event(VmEvent.PGSTEAL_KSWAPD) == 0
    run_kthreads(state, state.current[Current.CLOCK_PS] + PS_PER_S)
    assert machine.event(VmEvent.PGSTEAL_KSWAPD) > 0
    assert state.vm_stat[VmStat.NR_FREE_PAGES] >= before
    machine.check()


def test_a_hopeless_kswapd_sleeps_until_direct_reclaim_succeeds() -> None:
    machine = SwappedMachine(swap_pages=2)
    state = machine.state
    mm = machine.process(4000)
    page = 0
    while machine.event(VmEvent.PAGEOUTRUN) == 0:
        assert machine.write(mm, page)
        page += 1
        let_kswapd_run(machine)
    let_kswapd_run(machine, 20 * PS_PER_S)
    assert state.kthread[Kthread.KSWAPD].failures == 16
    assert state.kthread[Kthread.KSWAPD].clock_ps == ASLEEP
    wake_kswapd(state, 0, 0)
    assert state.kthread[Kthread.KSWAPD].clock_ps == ASLEEP


def test_without_reclaimable_pages_a_request_that_may_not_retry_just_fails() -> None:
    machine = SwappedMachine(swap_pages=2)
    mm = machine.process(10)
    machine.state.current[Current.MM] = mm
    machine.write(mm, 0)
    machine.write(mm, 1)
    assert direct_reclaim(machine.state, 0, GFP_HIGHUSER_MOVABLE | Gfp.NORETRY) in (0, 1)
    assert machine.event(VmEvent.OOM_KILL) == 0


def test_swappiness_zero_leaves_anonymous_pages_alone_until_memory_is_short() -> None:
    machine = SwappedMachine()
    state = machine.state
    state.knob[Knob.SWAPPINESS] = 0
    mm = machine.process(400)
    fill(machine, mm, range(200))
    state.current[Current.MM] = mm
    assert direct_reclaim(state, 0, GFP_HIGHUSER_MOVABLE | Gfp.NORETRY) == 0
    assert machine.event(VmEvent.PGSCAN_DIRECT) == 0
    assert machine.event(VmEvent.ALLOCSTALL_MOVABLE) == 1


def test_kswapd_stops_between_batches_at_the_end_of_its_slice() -> None:
    machine = SwappedMachine()
    state = machine.state
    mm = machine.process(2000)
    page = 0
    while state.kthread[Kthread.KSWAPD].clock_ps == ASLEEP:
        assert machine.write(mm, page)
        page += 1
    begin = int(state.kthread[Kthread.KSWAPD].clock_ps)
    state.current[Current.CLOCK_PS] = begin
    kswapd_slice(state, begin + 1)
    assert state.scan_control[Reclaimer.KSWAPD].phase in (KswapdPhase.STARTING, KswapdPhase.SHRINKING)
    assert machine.event(VmEvent.PGSCAN_KSWAPD) <= 32
    assert begin <= state.kthread[Kthread.KSWAPD].clock_ps < begin + PS_PER_MS


def test_what_a_low_zone_keeps_for_others_does_not_balance_the_machine() -> None:
    state = SwappedMachine().state
    dma, dma32 = state.zone[ZoneId.DMA], state.zone[ZoneId.DMA32]
    dma.nr_free = dma.high + state.lowmem_reserve[ZoneId.DMA * NR_ZONES + ZoneId.MOVABLE]
    dma32.nr_free = dma32.low
    assert not balanced(state, 0, ZoneId.MOVABLE)
    assert balanced(state, 0, ZoneId.DMA)
    wake_kswapd(state, 0, GFP_HIGHUSER_MOVABLE)
    assert state.kthread[Kthread.KSWAPD].clock_ps == state.current[Current.CLOCK_PS] < ASLEEP
