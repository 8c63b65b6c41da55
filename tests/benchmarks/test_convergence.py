"""The convergence table: what it calls a difference, and what noise."""

import pytest

from benchmarks.convergence import Outcome, compare, image_guests, main, run


def test_differences_are_those_to_the_same_seed_at_the_first_epoch() -> None:
    first = [Outcome(100, 10, 1.0), Outcome(300, 10, 3.0)]
    # Every seed has 10 more pages in: no noise. One has two pages more out, the other two less: noise only.
    second = [Outcome(110, 12, 1.0), Outcome(310, 8, 3.0)]
    base, row = compare({10: first, 100: second})
    assert (base.epoch_ms, row.epoch_ms) == (10, 100)
    assert base.difference == base.noise == {"pswpin": 0, "pswpout": 0, "stall_s": 0}
    assert row.mean == {"pswpin": 210, "pswpout": 10, "stall_s": 2.0}
    assert row.difference == pytest.approx({"pswpin": 5.0, "pswpout": 0.0, "stall_s": 0.0})
    assert row.noise == pytest.approx({"pswpin": 0.0, "pswpout": 20.0, "stall_s": 0.0})


def test_a_measure_that_is_zero_everywhere_differs_by_nothing() -> None:
    none = [Outcome(0, 0, 0.0), Outcome(0, 0, 0.0)]
    assert compare({10: none, 100: none})[1].difference["pswpin"] == 0


def test_the_images_touch_twice_what_their_host_has_for_them() -> None:
    specs, touched = image_guests(seed=1)
    assert [spec["guest"] for spec in specs] == [0, 1, 2, 3]
    assert 800 < touched >> 20 < 850


@pytest.mark.slow
def test_an_overcommitted_host_swaps_and_its_guests_wait() -> None:
    outcome = run("images", "ssd", 500, seed=1, seconds=6)
    assert outcome.pswpout > 0
    assert outcome.stall_s > 0


def test_fewer_than_two_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--seeds", "1"])
    assert stopped.value.code == 2
    assert "--seeds is at least 2" in capsys.readouterr().err
