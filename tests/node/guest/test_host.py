"""A host's phase: faults in order, contents at borders, views and stalls in the answers."""

from pathlib import Path

import numpy as np
import pytest

from node.counters import Current, Knob, KsmRun
from node.guest.host import HostMachine
from node.guest.image import ImageGuest
from node.guest.invariants import host_side
from node.hw.cost import Cost
from node.hw.ept_view import ViolationKind
from node.ksm.ksmd import ksm_set_run
from node.reclaim.lru import LruList
from node.swap.swap_out import add_to_swap, end_page_writebacks, remove_mapping, swap_writepage
from node.vm.rmap_walk import try_to_unmap
from shared.constants import NIL
from shared.messages import GuestReport, HostAnswer, HostPhase, RunUntil, decode_as, encode
from shared.views import View
from tests.models.recorded_image import columns_of, write_image
from tests.node.guest.drive import MS, S, image_spec
from tests.node.guest.fleet import MIB, Fleet, host_spec
from tests.node.reclaim.lru_entries import do_lru_del

pytestmark = pytest.mark.three_ways

READ, WRITE = ViolationKind.READ, ViolationKind.WRITE
GUEST = {"kind": "image", "memory_bytes": 64 * 4096}


def report(
    guest: int,
    violations: list[tuple[int, int, int]],
    changed: dict[int, int] | None = None,
    accessed: list[int] | None = None,
    epoch: int = 0,
) -> bytes:
    """Return an encoded report: violations are (time in ns, gfn, kind), changed is gfn -> content."""
    changed = changed or {}
    return encode(
        GuestReport(
            epoch=epoch,
            guest=guest,
            counters={},
            violation_time_ps=np.array([time * 1000 for time, _, _ in violations], np.int64),
            violation_gfn=np.array([gfn for _, gfn, _ in violations], np.int32),
            violation_vcpu=np.zeros(len(violations), np.int16),
            violation_kind=np.array([kind for _, _, kind in violations], np.int8),
            changed_gfn=np.array(list(changed), np.int32),
            changed_content=np.array(list(changed.values()), np.int64),
            changed_word=np.zeros(len(changed), np.int32),
            accessed_gfn=np.array(accessed if accessed is not None else list(changed), np.int32),
        )
    )


def phase(host: HostMachine, *reports: bytes, epoch: int = 0) -> list[HostAnswer]:
    order = HostPhase(epoch, epoch * 100 * MS, (epoch + 1) * 100 * MS, reports)
    return [decode_as(HostAnswer, answer) for answer in host.host_phase(order)]


def test_a_write_to_an_untouched_frame_gets_a_frame_with_the_final_content() -> None:
    host = HostMachine(host_spec([GUEST]))
    [answer] = phase(host, report(0, [(5, 3, WRITE), (9, 1, WRITE)], {3: 77, 1: 88}))
    side = host_side(host.state, 0)
    assert side.content[[0, 1, 2, 3]].tolist() == [0, 88, 0, 77]
    assert side.view[[0, 1, 2, 3]].tolist() == [View.UNTOUCHED, View.WRITABLE, View.UNTOUCHED, View.WRITABLE]
    # The guest raised its views itself: there is nothing to tell it.
    assert len(answer.view_gfn) == 0
    assert not answer.killed
    assert host.counters()["guest.0.rss_pages"] == 2


def test_a_minor_fault_takes_what_the_guest_was_charged() -> None:
    host = HostMachine(host_spec([GUEST]))
    [answer] = phase(host, report(0, [(5, 3, WRITE)], {3: 77}))
    assert answer.stall_ps.tolist() == [0]


def test_a_read_of_an_untouched_frame_maps_the_page_of_zeroes_read_only() -> None:
    host = HostMachine(host_spec([GUEST]))
    phase(host, report(0, [(5, 3, READ)], accessed=[3]))
    side = host_side(host.state, 0)
    assert side.view[3] == View.READ_ONLY
    assert host.counters()["guest.0.zero_pages"] == 1
    phase(host, report(0, [(100 * MS + 5, 3, WRITE)], {3: 5}, epoch=1), epoch=1)
    side = host_side(host.state, 0)
    assert (side.view[3], side.content[3]) == (View.WRITABLE, 5)
    assert host.counters()["guest.0.zero_pages"] == 0


def test_a_read_then_a_write_in_one_epoch_take_the_content_with_the_write() -> None:
    host = HostMachine(host_spec([GUEST]))
    phase(host, report(0, [(5, 3, READ), (6, 3, WRITE)], {3: 5}))
    side = host_side(host.state, 0)
    assert (side.view[3], side.content[3]) == (View.WRITABLE, 5)


def test_a_writable_frame_takes_its_content_without_a_fault() -> None:
    host = HostMachine(host_spec([GUEST]))
    phase(host, report(0, [(5, 3, WRITE)], {3: 5}))
    faults = host.counters()["pgfault"]
    phase(host, report(0, [], {3: 6}, epoch=1), epoch=1)
    assert host_side(host.state, 0).content[3] == 6
    assert host.counters()["pgfault"] == faults


def test_a_change_that_was_never_asked_for_is_a_broken_protocol() -> None:
    host = HostMachine(host_spec([GUEST]))
    with pytest.raises(Exception, match="kernel panic 12"):
        phase(host, report(0, [], {3: 6}))


def test_guests_have_memory_of_their_own() -> None:
    host = HostMachine(host_spec([GUEST, GUEST]))
    phase(host, report(0, [(5, 0, WRITE)], {0: 1}), report(1, [(5, 0, WRITE), (6, 63, WRITE)], {0: 2, 63: 3}))
    first, second = host_side(host.state, 0), host_side(host.state, 1)
    assert (first.content[0], second.content[0], second.content[63]) == (1, 2, 3)
    assert first.pfn[0] != second.pfn[0]


def served(host: HostMachine) -> list[tuple[int, int]]:
    """Return (guest, gfn) of the frames on the inactive list, the first that was faulted in first."""
    owner = {
        int(pfn): (guest, gfn)
        for guest in range(host.nr_guests)
        for gfn, pfn in enumerate(host_side(host.state, guest).pfn)
        if pfn >= 0
    }
    order = []
    pfn = host.state.lru[LruList.INACTIVE_ANON].last
    while pfn != NIL:
        order.append(owner[pfn])
        pfn = host.state.page[pfn].prev
    return order


def test_traffic_is_served_by_time_then_guest() -> None:
    host = HostMachine(host_spec([GUEST, GUEST]))
    phase(
        host,
        report(0, [(20_000, 5, WRITE), (30_000, 6, WRITE)], {5: 1, 6: 1}),
        report(1, [(10_000, 7, WRITE), (20_000, 8, WRITE), (30_000, 9, WRITE)], {7: 1, 8: 1, 9: 1}),
    )
    assert served(host) == [(1, 7), (0, 5), (1, 8), (0, 6), (1, 9)]


def test_a_vcpu_comes_to_its_next_violation_after_it_has_waited_for_the_one_before() -> None:
    # Breaking a merge takes longer than the guest is charged; its next fault moves behind the other guest's.
    host = HostMachine(host_spec([GUEST, GUEST]))
    host.state.cost[Cost.PAGE_COPY] = 10 * MS * 1000
    phase(host, report(0, [(5, 3, WRITE)], {3: 77}), report(1, [(6, 3, WRITE)], {3: 77}))
    host.state.knob[Knob.KSM_PAGES_TO_SCAN] = 100
    ksm_set_run(host.state, KsmRun.MERGE)
    phase(host, report(0, [], epoch=1), report(1, [], epoch=1), epoch=1)
    assert host_side(host.state, 0).view[3] == View.READ_ONLY
    start = 200 * MS
    phase(
        host,
        report(0, [(start, 3, WRITE), (start + 200, 4, WRITE)], {3: 1, 4: 2}, epoch=2),
        report(1, [(start + 5 * MS, 5, WRITE)], {5: 3}, epoch=2),
        epoch=2,
    )
    assert served(host)[-3:] == [(0, 3), (1, 5), (0, 4)]


def swap_out(host: HostMachine, guest: int, gfn: int) -> None:
    """Do to a guest's frame what reclaim does when its turn has come."""
    state = host.state
    pfn = int(host_side(state, guest).pfn[gfn])
    do_lru_del(state, pfn)
    state.page[pfn].refcount += 1
    try_to_unmap(state, pfn, add_to_swap(state, pfn))
    swap_writepage(state, pfn)
    state.current[Current.CLOCK_PS] += 20 * MS * 1000
    end_page_writebacks(state)
    assert remove_mapping(state, pfn)


def test_a_read_that_is_due_in_a_later_epoch_leaves_the_device_to_those_that_are_due_before() -> None:
    host = HostMachine(host_spec([GUEST, GUEST], swap={"size_bytes": MIB, "device": "hdd"}))
    host.state.knob[Knob.PAGE_CLUSTER] = 0
    first = report(0, [(5, 3, WRITE), (6, 4, WRITE)], {3: 1, 4: 2})
    phase(host, first, report(1, [(7, 9, WRITE), (8, 10, WRITE)], {9: 3, 10: 4}))
    for guest, gfn in ((0, 3), (1, 9), (0, 4), (1, 10)):  # no two that are read in turn lie side by side
        swap_out(host, guest, gfn)
    [answer, _] = phase(host, b"", b"", epoch=4)
    disk = host.state.disk[0]
    single = (disk.read_latency_ps + disk.page_read_ps) // 1000
    assert answer.estimate_ns == single
    # Guest 0 waits for guest 1's read and its own, and is charged for its own: its next is due behind the end.
    start = 500 * MS
    mine = report(0, [(start + 85 * MS, 3, READ), (start + 85 * MS + single, 4, READ)], epoch=5)
    [debt, _] = phase(host, mine, report(1, [(start + 84 * MS, 9, READ)], epoch=5), epoch=5)
    assert debt.stall_ps[0] / 1000 == pytest.approx(single - MS, abs=MS / 20)
    assert host_side(host.state, 0).content[[3, 4]].tolist() == [1, 2]
    assert (host_side(host.state, 0).pfn[[3, 4]] >= 0).all()
    assert (host.counters()["pswpin"], disk.nr_reads) == (3, 2)
    # Meanwhile guest 1 comes with another one. The device is busy with guest 0's first until 84 ms and two reads.
    [late, other] = phase(host, b"", report(1, [(start + 101 * MS, 10, READ)], epoch=6), epoch=6)
    assert disk.nr_reads == 4
    assert other.stall_ps[0] / 1000 == pytest.approx(84 * MS + 2 * single - 101 * MS, abs=MS / 20)
    assert late.stall_ps[0] / 1000 == pytest.approx(single, abs=MS / 20)


def test_a_resting_guest_has_an_answer_too() -> None:
    host = HostMachine(host_spec([GUEST, GUEST]))
    first, second = phase(host, b"", report(1, [(5, 0, WRITE)], {0: 2}))
    assert (first.guest, second.guest) == (0, 1)
    assert len(first.view_gfn) == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (report(1, []), "is guest 1's of epoch 0"),
        (report(0, [], epoch=3), "is guest 0's of epoch 3"),
        (report(0, [(5, 64, WRITE)]), "violation_gfn: 64..64 is outside 0..63"),
        (report(0, [], {-1: 5}), "changed_gfn: -1..-1 is outside 0..63"),
        (report(0, [], accessed=[99]), "accessed_gfn: 99..99 is outside 0..63"),
    ],
)
def test_a_report_that_does_not_fit_is_refused(data: bytes, said: str) -> None:
    host = HostMachine(host_spec([GUEST]))
    with pytest.raises(ValueError, match=said):
        phase(host, data)


def test_as_many_reports_as_guests_are_wanted() -> None:
    with pytest.raises(ValueError, match="reports: 1, but the host has 2 guests"):
        phase(HostMachine(host_spec([GUEST, GUEST])), report(0, []))


def test_a_host_runs_no_epoch() -> None:
    with pytest.raises(TypeError, match="host phase only"):
        HostMachine(host_spec([GUEST])).run_epoch(RunUntil(0, 0, 1))


def merged_pair(tmp_path: Path) -> Fleet:
    """Two guests with ten equal pages, one of them written later, on a host with an eager ksmd."""
    calm = [[5] * 10, [5] * 10]
    busy = [[5] * 10, [5] * 9 + [6]]
    specs = []
    for index, ids in enumerate((calm, busy)):
        path = write_image(tmp_path / f"{index}.npz", columns_of(ids))
        specs.append(
            image_spec(path, guest=index, machine=index, memory_bytes=40960, replay="once", boot_ns=10 * MS)
        )
    ksm = {"run": 1, "pages_to_scan": 100}
    return Fleet(HostMachine(host_spec(specs, ksm=ksm)), [ImageGuest(spec) for spec in specs])


def test_merged_pages_are_read_only_and_a_write_breaks_them_out(tmp_path: Path) -> None:
    fleet = merged_pair(tmp_path)
    fleet.run(4 * S, 100 * MS)
    counters = fleet.host.counters()
    assert (counters["ksm.pages_shared"], counters["ksm.pages_sharing"]) == (1, 19)
    assert fleet.view_after(0).tolist() == [View.READ_ONLY] * 10
    faults = counters["cow_ksm"]
    fleet.run(11 * S, 100 * MS)
    counters = fleet.host.counters()
    assert counters["cow_ksm"] == faults + 1
    assert counters["ksm.pages_sharing"] == 18
    assert fleet.guests[1].counters()["changes"] == 1
    assert (counters["guest.0.ksm_pages"], counters["guest.1.ksm_pages"]) == (10, 9)


def test_breaking_a_merge_costs_more_than_the_guest_was_charged(tmp_path: Path) -> None:
    fleet = merged_pair(tmp_path)
    fleet.run(4 * S, 100 * MS)
    owed = 0
    while fleet.now_ns < 11 * S:
        fleet.step(fleet.now_ns + 100 * MS)
        owed += int(fleet.last[1].stall_ps.sum())
    cost = fleet.host.state.cost
    assert owed >= cost[Cost.PAGE_COPY] - cost[Cost.PAGE_ZERO]


def test_a_restored_host_answers_with_the_same_bytes(tmp_path: Path) -> None:
    fleet = merged_pair(tmp_path)
    fleet.run(2 * S, 100 * MS)
    saved = fleet.host.snapshot()
    specs = [dict(GUEST, memory_bytes=40960)] * 2
    restored = HostMachine(host_spec(specs, ksm={"run": 1, "pages_to_scan": 100}))
    restored.restore(saved)
    assert restored.digest() == fleet.host.digest()
    reports = tuple(guest.run_epoch(RunUntil(fleet.epoch, 2 * S, 6 * S)) for guest in fleet.guests)
    order = HostPhase(fleet.epoch, 2 * S, 6 * S, reports)
    assert restored.host_phase(order) == fleet.host.host_phase(order)
    assert restored.digest() == fleet.host.digest()


def test_the_host_is_refused_when_it_cannot_hold_its_own_kernel() -> None:
    with pytest.raises(ValueError, match="memory"):
        HostMachine(host_spec([GUEST], memory_mib=16))
    assert MIB == 1 << 20
