"""Host and guests together: at every border the host holds what its guests hold."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from node.guest.guest_machine import GuestMachine
from node.guest.host import HostMachine
from node.guest.image import ImageGuest
from node.hw.pte import PFN_MASK
from node.hw.tlb import FRAME_SHIFT
from node.state import State
from shared.images import PageClass
from shared.messages import GuestReport, RunUntil, decode_as
from shared.views import View
from tests.models.recorded_image import columns_of, write_image
from tests.node.guest.drive import MS, S, answer, image_spec
from tests.node.guest.fleet import MIB, Fleet, check_tlb, host_spec, tlb_entries

pytestmark = pytest.mark.three_ways

SMALLEST_HOST_MIB = 64
SWAP = {"size_bytes": 32 * MIB, "device": "ssd"}


def small_images(tmp_path: Path, nr_pages: int, **more: Any) -> list[dict[str, Any]]:
    """Two guests of which a third of the pages are equal, some zero, and some change all the time."""
    rng = np.random.default_rng(5)
    specs = []
    for index in range(2):
        ids = np.tile(np.arange(1, nr_pages + 1) + index * nr_pages, (3, 1))
        ids[:, ::3] = np.arange(1, nr_pages + 1)[::3]
        ids[:, ::11] = 0
        busy = rng.permutation(nr_pages)[: nr_pages // 5]
        ids[1, busy] += 2 * nr_pages
        ids[2, busy[::2]] += 4 * nr_pages
        columns = columns_of(ids, classes=PageClass.ANON, times_s=(0.5, 1.5, 3))
        path = write_image(tmp_path / f"{index}.npz", columns)
        keys = {"guest": index, "machine": index, "memory_bytes": nr_pages * 4096}
        specs.append(image_spec(path, hot_period_ns=150 * MS, **keys, **more))
    return specs


def image_fleet(specs: list[dict[str, Any]], **host: Any) -> Fleet:
    return Fleet(HostMachine(host_spec(specs, **host)), [ImageGuest(spec) for spec in specs])


@pytest.mark.parametrize("replay", ["rate", "once"])
def test_contents_agree_while_ksm_merges(tmp_path: Path, replay: str) -> None:
    specs = small_images(tmp_path, 160, replay=replay)
    fleet = image_fleet(specs, ksm={"run": 1, "pages_to_scan": 160, "sleep_millisecs": 100})
    fleet.run(4 * S, 100 * MS)
    counters = fleet.host.counters()
    assert counters["ksm.pages_sharing"] > 40
    assert counters["cow_ksm"] > 0
    assert fleet.guests[0].counters()["ept_violation"] > 160


def test_contents_agree_on_an_overcommitted_host(tmp_path: Path) -> None:
    specs = small_images(tmp_path, 2400)
    fleet = image_fleet(specs, memory_mib=SMALLEST_HOST_MIB, swap=SWAP, ksm={"run": 1, "pages_to_scan": 100})
    free = fleet.host.counters()["nr_free_pages"]
    assert free < 2 * 2400
    fleet.run(S + 700 * MS, 100 * MS)
    counters = fleet.host.counters()
    assert counters["pswpout"] > 0
    assert counters["pswpin"] > 0
    assert sum(guest.counters()["stall_ns"] for guest in fleet.guests) > 0


def test_the_same_fleet_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    def run() -> tuple[str, list[str], list[bytes]]:
        specs = small_images(tmp_path, 160)
        fleet = image_fleet(specs, ksm={"run": 1, "pages_to_scan": 120, "sleep_millisecs": 50})
        fleet.run(S, 100 * MS)
        return fleet.host.digest(), [guest.digest() for guest in fleet.guests], fleet.answers

    assert run() == run()


def test_without_swap_a_guest_is_killed_and_the_other_goes_on(tmp_path: Path) -> None:
    specs = small_images(tmp_path, 2400)
    fleet = image_fleet(specs, memory_mib=SMALLEST_HOST_MIB)
    fleet.run(2 * S, 100 * MS)
    killed = [answer.killed for answer in fleet.last]
    assert sorted(killed) == [False, True]
    counters = fleet.host.counters()
    assert counters["oom_kill"] == 1
    dead = killed.index(True)
    assert (counters[f"guest.{dead}.killed"], counters[f"guest.{dead}.rss_pages"]) == (1, 0)
    assert counters[f"guest.{1 - dead}.rss_pages"] > 2000


def machine_guest(index: int, process_mib: int = 1, **more: Any) -> dict[str, Any]:
    process = {
        "workload": "uniform",
        "memory_bytes": process_mib * MIB,
        "operations": 0,
        "write_percent": 50,
        "cpu": 0,
        "skew_thousandths": 1000,
        "mergeable": False,
        "think_ns": 100_000,
    }
    return {
        "kind": "guest",
        "memory_bytes": SMALLEST_HOST_MIB * MIB,
        "cpus": 2,
        "processes": [process, dict(process, cpu=1, workload="sequential")],
        "seed": 3,
        "machine": index,
        "guest": index,
    } | more


def machine_fleet(nr_guests: int, process_mib: int = 1, **host: Any) -> Fleet:
    specs = [machine_guest(index, process_mib) for index in range(nr_guests)]
    host.setdefault("memory_mib", 128)
    return Fleet(HostMachine(host_spec(specs, **host)), [GuestMachine(spec) for spec in specs])


def test_full_machines_agree_with_their_host() -> None:
    fleet = machine_fleet(2, ksm={"run": 1, "pages_to_scan": 100})
    fleet.run(200 * MS, 50 * MS)
    counters = fleet.host.counters()
    assert counters["guest.0.rss_pages"] > 2 * 256
    guest = fleet.guests[0].counters()
    assert guest["ept_violation"] > 2 * 256
    assert guest["stall_ns"] > 0


def test_page_tables_of_guests_are_memory_of_the_host() -> None:
    fleet = machine_fleet(1)
    fleet.run(20 * MS, 10 * MS)
    state = fleet.guests[0].state
    assert isinstance(state, State)
    tables = np.flatnonzero((np.asarray(state.page)["page_flags"] & (1 << 3)) != 0)
    tables = tables[np.asarray(state.pt_word).reshape(-1, 512)[tables].any(axis=1)]  # empty ones are zeroes
    assert len(tables) >= 8
    contents = fleet.guests[0].contents()[tables]
    assert len(set(contents.tolist())) == len(tables)
    assert 0 not in contents


def test_full_machines_agree_with_a_host_that_swaps_them() -> None:
    fleet = machine_fleet(2, process_mib=6, memory_mib=SMALLEST_HOST_MIB, swap=SWAP)
    fleet.run(400 * MS, 50 * MS)
    counters = fleet.host.counters()
    assert counters["pswpout"] > 0
    assert counters["pswpin"] > 0
    guests = [guest.counters() for guest in fleet.guests]
    assert all(guest["pswpout"] == 0 for guest in guests)  # it is the host that has too little
    assert sum(guest["stall_ns"] for guest in guests) > 20 * MS


def cached_frames(guest: GuestMachine) -> npt.NDArray[np.int64]:
    """Return the frames that the guest's TLBs map."""
    words = tlb_entries(guest)["word"]
    return np.unique((words >> FRAME_SHIFT) & PFN_MASK)


def test_a_lowered_view_leaves_the_tlb_and_the_next_access_waits_for_the_device() -> None:
    guest = GuestMachine(machine_guest(0))
    guest.run_epoch(RunUntil(0, 0, 10 * MS))
    cached = cached_frames(guest)
    lowered = answer(
        view_gfn=cached, view_level=[View.SWAPPED] * len(cached), estimate_ns=90_000, stall_ps=[0, 0]
    )
    flushes = guest.counters()["nr_tlb_remote_flush_received"]
    report = decode_as(GuestReport, guest.run_epoch(RunUntil(1, 10 * MS, 20 * MS, lowered)))
    assert guest.counters()["nr_tlb_remote_flush_received"] == flushes + 2  # one a CPU
    check_tlb(guest)
    times = report.violation_time_ps[np.isin(report.violation_gfn, cached) & (report.violation_vcpu == 0)]
    assert len(times) > 2
    assert (np.diff(times) >= 90_000_000).all()


def test_a_debt_is_served_before_anything_runs() -> None:
    guest = GuestMachine(machine_guest(0))
    guest.run_epoch(RunUntil(0, 0, 10 * MS))
    before = guest.counters()
    owed = answer(stall_ps=[25 * MS * 1000, 0])
    guest.run_epoch(RunUntil(1, 10 * MS, 20 * MS, owed))
    guest.run_epoch(RunUntil(2, 20 * MS, 30 * MS))
    state = guest.state
    assert state.cpu[0].owed_ps == pytest.approx(5 * MS * 1000, abs=200_000_000)
    assert guest.counters()["stall_ns"] - before["stall_ns"] >= 19 * MS
    guest.run_epoch(RunUntil(3, 30 * MS, 40 * MS))
    assert state.cpu[0].owed_ps == 0


def test_what_was_charged_too_much_makes_the_next_violations_cheaper() -> None:
    def stall_after(owed_ps: int) -> int:
        guest = GuestMachine(machine_guest(0))
        guest.run_epoch(RunUntil(0, 0, 10 * MS))
        cached = cached_frames(guest)
        lowered = answer(
            view_gfn=cached,
            view_level=[View.SWAPPED] * len(cached),
            estimate_ns=90_000,
            stall_ps=[owed_ps, 0],
        )
        guest.run_epoch(RunUntil(1, 10 * MS, 20 * MS, lowered))
        assert guest.state.cpu[0].owed_ps == 0
        return int(guest.state.cpu[0].stall_ps)

    # The processor does more work in the time it got, so it stalls for more than what is left of the estimates.
    assert stall_after(0) - 250_000_000 <= stall_after(-250_000_000) < stall_after(0)


def test_a_killed_machine_stops() -> None:
    guest = GuestMachine(machine_guest(0))
    guest.run_epoch(RunUntil(0, 0, 10 * MS))
    operations = guest.counters()["operations"]
    report = decode_as(GuestReport, guest.run_epoch(RunUntil(1, 10 * MS, 20 * MS, answer(killed=True))))
    assert report.finished
    assert len(report.violation_gfn) == 0
    assert guest.counters()["operations"] == operations


def test_a_guest_starts_when_its_offset_says() -> None:
    spec = machine_guest(0, start_offset_ns=30 * MS)
    fleet = Fleet(HostMachine(host_spec([spec], memory_mib=128)), [GuestMachine(spec)])
    fleet.run(30 * MS, 10 * MS)
    assert fleet.host.counters()["guest.0.rss_pages"] == 0
    fleet.run(60 * MS, 10 * MS)
    assert fleet.host.counters()["guest.0.rss_pages"] > 0


def test_a_restored_guest_machine_goes_on_with_the_same_bytes() -> None:
    fleet = machine_fleet(1)
    fleet.run(40 * MS, 10 * MS)
    restored = GuestMachine(machine_guest(0))
    restored.restore(fleet.guests[0].snapshot())
    order = RunUntil(fleet.epoch, 40 * MS, 60 * MS, fleet.answers[0])
    assert restored.run_epoch(order) == fleet.guests[0].run_epoch(order)
    assert restored.digest() == fleet.guests[0].digest()
