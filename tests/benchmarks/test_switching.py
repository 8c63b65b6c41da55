"""The benchmark of switches and shootdowns: what is walked for again, and who pays for a flush."""

import pytest

from benchmarks.switching import shootdown_cost, turn_cost

NR_PAGES = 64


def test_with_pcids_a_switch_keeps_what_was_translated() -> None:
    turn = turn_cost(pcid=True, nr_turns=4, nr_pages=NR_PAGES)
    assert turn.walks == 0
    assert 1200 < turn.switch_ns < turn.simulated_ns
    assert turn.real_ns > 0


def test_without_pcids_every_page_is_walked_for_again() -> None:
    kept, dropped = (turn_cost(pcid=pcid, nr_turns=4, nr_pages=NR_PAGES) for pcid in (True, False))
    assert NR_PAGES <= dropped.walks <= NR_PAGES + 8  # and for the kernel's pages that are not global
    assert dropped.simulated_ns > kept.simulated_ns


@pytest.mark.parametrize("nr_cpus", [2, 8])
def test_who_asks_for_a_flush_waits_once_and_every_other_cpu_is_interrupted(nr_cpus: int) -> None:
    alone, together = (shootdown_cost(number, 10, NR_PAGES) for number in (1, nr_cpus))
    assert together.sender_ns > alone.sender_ns == alone.all_cpus_ns
    asked = together.all_cpus_ns - together.sender_ns
    assert asked == pytest.approx(
        (nr_cpus - 1) * (shootdown_cost(2, 10, NR_PAGES).all_cpus_ns - together.sender_ns)
    )
    assert together.real_ns > 0
