"""Switches and system calls with and without PCIDs and isolation, beside published measurements of them.

Tests of direction and rough size: docs/fidelity.md has the figures and says where they differ, and why.
"""

import pytest

from tests.study.published import (
    CALL_HARDWARE,
    NO_ISOLATION,
    NR_PAGES,
    PUBLISHED_CALL_NS,
    PUBLISHED_SWITCH_US,
    PUBLISHED_TURN_US,
    PUBLISHED_WALK_RATIO,
    WITH_PCID,
    WITHOUT_PCID,
    Call,
    Turn,
    measure_calls,
    measure_turns,
    saved_ns_per_walk,
)

TOLERANCE = 0.35


@pytest.fixture(scope="module")
def turns() -> dict[bool, Turn]:
    return {pcid: measure_turns(pcid=pcid) for pcid in (True, False)}


@pytest.fixture(scope="module")
def calls() -> dict[str, Call]:
    return {name: measure_calls(hw) for name, hw in CALL_HARDWARE.items()}


def test_without_pcid_every_page_is_walked_for_at_every_turn(turns: dict[bool, Turn]) -> None:
    assert turns[False].walks == pytest.approx(NR_PAGES, rel=0.02)


def test_with_pcid_there_are_fewer_walks_by_the_published_factor_or_more(turns: dict[bool, Turn]) -> None:
    # More: nothing but the two processes competes for the TLBs here.
    assert pytest.approx(18.8, abs=0.1) == PUBLISHED_WALK_RATIO
    assert turns[True].walks * PUBLISHED_WALK_RATIO <= turns[False].walks


@pytest.mark.parametrize("pcid", [True, False])
def test_a_switch_costs_about_the_published_time_with_pcid_or_without(
    turns: dict[bool, Turn], pcid: bool
) -> None:
    assert turns[pcid].switch_us == pytest.approx(PUBLISHED_SWITCH_US[pcid], rel=0.15)
    assert turns[pcid].switch_us == pytest.approx(turns[not pcid].switch_us, rel=0.1)


def test_pcid_saves_about_the_published_time_on_each_page(turns: dict[bool, Turn]) -> None:
    saved_ns = saved_ns_per_walk({pcid: turn.us for pcid, turn in turns.items()})
    assert saved_ns == pytest.approx(saved_ns_per_walk(PUBLISHED_TURN_US), rel=TOLERANCE)


@pytest.mark.parametrize("name", list(CALL_HARDWARE))
def test_a_system_call_takes_about_the_published_time(calls: dict[str, Call], name: str) -> None:
    assert calls[name].ns == pytest.approx(PUBLISHED_CALL_NS[name], rel=TOLERANCE)


def test_isolation_costs_system_calls_time_and_more_without_pcid(calls: dict[str, Call]) -> None:
    assert calls[NO_ISOLATION].ns < calls[WITH_PCID].ns < calls[WITHOUT_PCID].ns


def test_what_isolation_adds_to_a_system_call_is_about_what_was_published(calls: dict[str, Call]) -> None:
    for name in (WITH_PCID, WITHOUT_PCID):
        added_ns = calls[name].ns - calls[NO_ISOLATION].ns
        assert added_ns == pytest.approx(
            PUBLISHED_CALL_NS[name] - PUBLISHED_CALL_NS[NO_ISOLATION], rel=TOLERANCE
        )


def test_only_without_pcid_a_system_call_walks_again_for_the_pages_around_it(calls: dict[str, Call]) -> None:
    # Five of the program, four of the kernel's entry.
    assert [calls[name].walks for name in CALL_HARDWARE] == [0, 0, 9]
