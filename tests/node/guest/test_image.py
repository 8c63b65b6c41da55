"""Replayed images: when pages are touched and changed, to what, and what a stalled guest does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.guest.image import VIOLATION_PS, ImageGuest
from shared.images import HostState, PageClass, load_image
from shared.messages import GuestReport, HostPhase, RunUntil, decode_as
from shared.views import View
from tests.models.recorded_image import columns_of, write_image
from tests.models.replay_model import ReplayModel
from tests.node.guest.drive import MS, S, answer, epochs, image_spec, run

pytestmark = pytest.mark.three_ways

TIMES = [5 * S, 10 * S, 20 * S, 40 * S, 80 * S, 140 * S]
NR_PAGES = 48


def varied_ids() -> tuple[np.ndarray, np.ndarray]:
    """Pages that change in 0 to 5 of 5 spans, some touched late, some never, some always zero."""
    rng = np.random.default_rng(11)
    ids = np.zeros((6, NR_PAGES), np.int64)
    state = np.full((6, NR_PAGES), HostState.THP)
    for gfn in range(NR_PAGES):
        changing = rng.permutation(5)[: gfn % 6]
        ids[:, gfn] = 1 + gfn
        for span in changing:
            ids[span + 1 :, gfn] += NR_PAGES
        first = [0, 0, 0, 2, 4, 6][gfn // 8]
        ids[:first, gfn] = 0
        state[:first, gfn] = HostState.ABSENT
    ids[:, 7] = 0
    return ids, state


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    ids, state = varied_ids()
    return write_image(tmp_path / "varied.npz", columns_of(ids, host_state=state))


def contents_of(path: Path) -> np.ndarray:
    image = load_image(path)
    return image.content_ids[image.ids]


def trace(guest: ImageGuest, end_ns: int, epoch_ns: int) -> dict[int, list[tuple[int, int]]]:
    """Return each page's changes as (end of the epoch in which it was seen, content)."""
    seen: dict[int, list[tuple[int, int]]] = {}
    for _, start, end in epochs(end_ns, epoch_ns):
        report = decode_as(GuestReport, guest.run_epoch(RunUntil(0, start, end)))
        for gfn, content in zip(report.changed_gfn.tolist(), report.changed_content.tolist(), strict=True):
            seen.setdefault(gfn, []).append((end, content))
    return seen


def test_pages_are_touched_in_order_over_the_time_of_the_first_snapshot(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 0, 2, 3], [1, 0, 2, 3]]))
    guest = ImageGuest(image_spec(path))
    reports = run(guest, 5 * S, 500 * MS)
    gfns = [gfn for report in reports for gfn in report.violation_gfn.tolist()]
    times = [time for report in reports for time in report.violation_time_ps.tolist()]
    assert gfns == [0, 1, 2, 3]
    assert times == [nth * 1250 * MS * 1000 + nth * VIOLATION_PS for nth in range(4)]
    assert all(report.violation_kind.tolist() == [1] * len(report.violation_gfn) for report in reports)
    # A page of zeroes is touched, but what it holds does not change.
    assert [gfn for report in reports for gfn in report.changed_gfn.tolist()] == [0, 2, 3]
    assert [gfn for report in reports for gfn in report.accessed_gfn.tolist()] == [0, 1, 2, 3]
    assert guest.counters()["touched_pages"] == 4


def test_nonzero_presence_leaves_out_what_is_zero_in_every_snapshot(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 0, 0, 0], [1, 0, 2, 0]]))
    guest = ImageGuest(image_spec(path, presence="nonzero"))
    run(guest, 11 * S, S)
    assert np.asarray(guest.state.page)["touched"].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("replay", ["rate", "once"])
def test_behind_each_snapshots_time_contents_are_the_recorded_ones(varied: Path, replay: str) -> None:
    guest = ImageGuest(image_spec(varied, replay=replay, hot_period_ns=7 * S))
    recorded = contents_of(varied)
    now = 0
    for snapshot, time_ns in enumerate(TIMES):
        end = time_ns + MS  # the lag of its violations is less than that
        guest.run_epoch(RunUntil(snapshot, now, end))
        now = end
        assert guest.contents().tolist() == recorded[snapshot].tolist()


def test_events_do_not_depend_on_the_length_of_an_epoch(varied: Path) -> None:
    def events(epoch_ns: int) -> tuple[list[int], list[int], list[int], dict[str, int], str]:
        guest = ImageGuest(image_spec(varied, start_offset_ns=1_234_567_891))
        reports = run(guest, 33 * S, epoch_ns)
        return (
            [time for report in reports for time in report.violation_time_ps.tolist()],
            [gfn for report in reports for gfn in report.violation_gfn.tolist()],
            guest.contents().tolist(),
            guest.counters(),
            guest.digest(),
        )

    assert events(70 * MS)[:4] == events(33 * S)[:4] == events(1_100 * MS)[:4]


def test_changes_once_are_the_models(varied: Path) -> None:
    _, state = varied_ids()
    model = ReplayModel(contents_of(varied), state != 0, TIMES, seed=3, machine=5, hot=S)
    guest = ImageGuest(image_spec(varied, replay="once"))
    seen = trace(guest, 150 * S, 50 * MS)
    for gfn in range(NR_PAGES):
        expected = [(when, content) for when, content in model.once(gfn) if content or when > 140 * S]
        found = seen.get(gfn, [])
        assert [content for _, content in found] == [content for _, content in expected], gfn
        for (end, _), (when, _) in zip(found, expected, strict=True):
            assert end - 51 * MS < when < end


def test_changes_at_a_rate_are_the_models(varied: Path) -> None:
    _, state = varied_ids()
    end = 30 * S
    hot = 3 * S
    model = ReplayModel(contents_of(varied), state != 0, TIMES, seed=3, machine=5, hot=hot)
    guest = ImageGuest(image_spec(varied, hot_period_ns=hot))
    seen = trace(guest, end, 20 * MS)
    unique = set()
    for gfn in range(NR_PAGES):
        # What the recording restores may be what is there already: then nothing is seen.
        expected = []
        now = 0
        for when, content in model.rate(gfn, end):
            if when < end and (content is None or content != now):
                expected.append((when, content))
                now = content  # type: ignore[assignment]
        found = [(seen_at, content) for seen_at, content in seen.get(gfn, [])]
        assert len(found) == len(expected), gfn
        for (seen_at, content), (when, wanted) in zip(found, expected, strict=True):
            assert seen_at - 21 * MS < when < seen_at
            if wanted is None:
                assert content not in unique
                unique.add(content)
            else:
                assert content == wanted
    assert len(unique) > 20


def test_a_span_sees_no_change_as_often_as_the_recording_says(tmp_path: Path) -> None:
    # Every page changed in 2 of 5 spans of 10 s: a span passes without a change with probability 3/5.
    nr_pages = 1500
    ids = np.tile(np.arange(1, nr_pages + 1), (6, 1))
    ids[2:] += nr_pages
    ids[4:] += nr_pages
    path = write_image(tmp_path / "a.npz", columns_of(ids, times_s=(1, 11, 21, 31, 41, 51)))
    guest = ImageGuest(image_spec(path))
    run(guest, 52 * S, 52 * S)  # the last snapshot is set, whatever the lag of the guest's violations
    start = guest.contents()
    guest.run_epoch(RunUntil(1, 52 * S, 62 * S))
    assert (guest.contents() == start).mean() == pytest.approx(0.6, abs=0.04)


def test_a_page_that_changed_in_every_span_changes_in_every_hot_period(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2], [3, 2], [4, 2]]))
    guest = ImageGuest(image_spec(path, hot_period_ns=200 * MS))
    run(guest, 6 * S, 6 * S)
    for number in range(20):
        start = 6 * S + number * 200 * MS
        report = decode_as(GuestReport, guest.run_epoch(RunUntil(1, start, start + 200 * MS)))
        assert report.changed_gfn.tolist() == [0]


def test_a_frozen_image_is_one_snapshot_for_good(varied: Path) -> None:
    guest = ImageGuest(image_spec(varied, replay="frozen", snapshot=4))
    reports = run(guest, 200 * S, 50 * S)
    assert guest.contents().tolist() == contents_of(varied)[4].tolist()
    assert [len(report.violation_gfn) for report in reports] == [40, 0, 0, 0]
    assert reports[0].violation_time_ps.tolist() == [nth * VIOLATION_PS for nth in range(40)]


def test_a_clone_shares_files_and_kernel_and_has_anonymous_pages_of_its_own(tmp_path: Path) -> None:
    classes = [
        PageClass.ANON,
        PageClass.FILE,
        PageClass.SLAB,
        PageClass.SHMEM,
        PageClass.FREE,  # holds what the next page does
        PageClass.FILE,
        PageClass.FREE,
        PageClass.ANON,
    ]
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2, 3, 4, 5, 5, 6, 0]], classes=classes))
    variants = [0, 8, 8, 9]
    guests = [ImageGuest(image_spec(path, variant=variant, replay="frozen")) for variant in variants]
    for guest in guests:
        run(guest, S, S)
    recorded, clone, twin, other = (guest.contents() for guest in guests)
    assert recorded.tolist() == [1007, 2007, 3007, 4007, 5007, 5007, 6007, 0]
    assert (clone == recorded).tolist() == [False, True, True, False, True, True, False, True]
    assert (other == recorded).tolist() == (clone == recorded).tolist()
    assert (clone == twin).all()
    assert not set(clone[[0, 3, 6]]) & set(other[[0, 3, 6]])


def test_a_content_of_a_clone_stays_when_its_page_is_freed(tmp_path: Path) -> None:
    columns = columns_of([[1], [1]], classes=[[PageClass.ANON], [PageClass.FREE]])
    guest = ImageGuest(image_spec(write_image(tmp_path / "a.npz", columns), variant=4))
    run(guest, 11 * S, S)
    assert guest.counters()["changes"] == 0


def test_a_stalled_guest_serves_its_debt_over_several_epochs(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2, 3, 4], [1, 2, 3, 4]]))
    guest = ImageGuest(image_spec(path, boot_ns=4 * S))
    lag = 0
    owed = answer(stall_ps=[2_500 * MS * 1000])
    orders = [RunUntil(number, number * S, (number + 1) * S) for number in range(7)]
    counts = []
    for order in orders:
        sent = RunUntil(order.epoch, order.start_ns, order.end_ns, owed if order.epoch == 1 else b"")
        report = decode_as(GuestReport, guest.run_epoch(sent))
        counts.append(len(report.violation_gfn))
        lag += len(report.violation_gfn) * VIOLATION_PS
        counters = guest.counters()
        stall_ps = lag + min(max(0, order.end_ns - S), 2_500 * MS) * 1000
        assert abs(counters["stall_ns"] - stall_ps // 1000) <= 1
        assert abs(counters["run_ns"] + counters["stall_ns"] - order.end_ns) <= 1
    assert counts == [1, 0, 0, 1, 1, 1, 0]


def test_what_was_charged_too_much_is_taken_off_the_next_debt(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1], [1]]))
    guest = ImageGuest(image_spec(path))
    for number, stall_ps in enumerate([-5 * S, 3 * S, 4 * S]):
        guest.run_epoch(RunUntil(number, number * 10 * S, (number + 1) * 10 * S, answer(stall_ps=[stall_ps])))
    assert guest.counters()["stall_ns"] == 2 * S // 1000 + VIOLATION_PS // 1000


def test_what_was_charged_too_much_is_taken_off_the_next_estimates(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2], [3, 2], [4, 2]]))
    guest = ImageGuest(image_spec(path))
    run(guest, 8 * S, 8 * S)
    before = guest.counters()["stall_ns"]
    lowered = answer(view_gfn=[0], view_level=[View.SWAPPED], estimate_ns=77_000, stall_ps=[-50_000_000])
    guest.run_epoch(RunUntil(1, 8 * S, 10 * S, lowered))
    assert guest.counters()["stall_ns"] - before == pytest.approx(27_000 + VIOLATION_PS / 1000, abs=2)
    guest.run_epoch(RunUntil(2, 10 * S, 12 * S, answer(stall_ps=[3_000])))
    after = guest.counters()["stall_ns"] - before
    assert after == pytest.approx(27_003 + VIOLATION_PS / 1000, abs=2)  # nothing is taken off twice


def test_a_swapped_page_is_charged_the_estimate_it_was_told(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2], [3, 2], [4, 2]]))
    guest = ImageGuest(image_spec(path))
    run(guest, 8 * S, 8 * S)
    before = guest.counters()["stall_ns"]
    lowered = answer(view_gfn=[0, 1], view_level=[View.SWAPPED, View.READ_ONLY], estimate_ns=77_000)
    report = decode_as(GuestReport, guest.run_epoch(RunUntil(1, 8 * S, 10 * S, lowered)))
    assert report.violation_gfn.tolist() == [0]  # its next changes are free
    assert guest.counters()["stall_ns"] - before == pytest.approx(77_000 + VIOLATION_PS / 1000, abs=2)
    assert np.asarray(guest.state.ept_view).tolist() == [View.WRITABLE, View.READ_ONLY]


def test_a_killed_guest_stops(varied: Path) -> None:
    guest = ImageGuest(image_spec(varied))
    guest.run_epoch(RunUntil(0, 0, S))
    before = guest.counters()
    report = decode_as(GuestReport, guest.run_epoch(RunUntil(1, S, 100 * S, answer(killed=True))))
    assert report.finished
    assert len(report.violation_gfn) == len(report.changed_gfn) == len(report.accessed_gfn) == 0
    assert guest.counters() == before


def test_a_guest_starts_at_its_offset(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.npz", columns_of([[1, 2]]))
    guest = ImageGuest(image_spec(path, start_offset_ns=3 * S))
    reports = run(guest, 6 * S, S)
    assert [len(report.violation_gfn) for report in reports] == [0, 0, 0, 1, 0, 1]
    assert guest.counters()["run_ns"] == 3 * S - 2 * VIOLATION_PS // 1000 - 1


def test_a_restored_guest_goes_on_with_the_same_bytes(varied: Path) -> None:
    spec = image_spec(varied)
    guest = ImageGuest(spec)
    run(guest, 12 * S, S)
    saved = guest.snapshot()
    restored = ImageGuest(spec)
    restored.restore(saved)
    assert restored.digest() == guest.digest()
    for number in range(12, 25):
        order = RunUntil(number, number * S, (number + 1) * S)
        assert restored.run_epoch(order) == guest.run_epoch(order)
    assert restored.snapshot() == guest.snapshot()


def test_a_killed_guest_is_restored_dead(varied: Path) -> None:
    spec = image_spec(varied)
    guest = ImageGuest(spec)
    guest.run_epoch(RunUntil(0, 0, S, answer(killed=True)))
    restored = ImageGuest(spec)
    restored.restore(guest.snapshot())
    order = RunUntil(1, S, 2 * S)
    assert restored.run_epoch(order) == guest.run_epoch(order)


@pytest.mark.parametrize("key", [{"seed": 4}, {"variant": 1}, {"replay": "once"}, {"presence": "nonzero"}])
def test_a_snapshot_of_another_guest_is_refused(varied: Path, key: dict[str, Any]) -> None:
    saved = ImageGuest(image_spec(varied)).snapshot()
    with pytest.raises(ValueError, match="snapshot: is of"):
        ImageGuest(image_spec(varied, **key)).restore(saved)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"presence": "all"}, "presence: 'all' is none of thp, nonzero"),
        ({"replay": "live"}, "replay: 'live' is none of rate, once, frozen"),
        ({"replay": "frozen", "snapshot": 6}, "snapshot: 6 is outside 0..5"),
        ({"hot_period_ns": 0}, "hot_period_ns: 0 is below 1"),
    ],
)
def test_a_wrong_key_is_named(varied: Path, key: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageGuest(image_spec(varied, **key))


def test_a_view_of_a_frame_that_does_not_exist_is_refused(varied: Path) -> None:
    guest = ImageGuest(image_spec(varied))
    with pytest.raises(ValueError, match=r"view_gfn: 48\.\.48 is outside 0\.\.47"):
        guest.run_epoch(RunUntil(0, 0, S, answer(view_gfn=[48], view_level=[1])))


def test_an_image_guest_is_no_host(varied: Path) -> None:
    with pytest.raises(TypeError, match="no host phase"):
        ImageGuest(image_spec(varied)).host_phase(HostPhase(0, 0, 1, ()))
