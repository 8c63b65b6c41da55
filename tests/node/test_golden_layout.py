"""A recorded machine's free blocks, laid into a built one."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from node.build import build_state
from node.golden_harness import GoldenHarness, Recorded
from node.golden_layout import (
    GoldenLayout,
    LayoutError,
    RecordedStart,
    buddy_counters,
    read_pagetypeinfo,
    recorded_start,
)
from node.invariants import violations
from node.phys.frames_check import check_frames
from node.phys.zone import ZoneId
from node.proc.buddyinfo import buddyinfo
from node.proc.pagetypeinfo import pagetypeinfo
from node.spec import MachineSpec
from shared.constants import MIB

pytestmark = pytest.mark.three_ways

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).resolve().parents[1] / "golden" / "buddy_big.json.gz").read_bytes())
)


def words(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines if line.split()]


def test_the_lists_are_as_recorded_once_the_harness_has_its_pages() -> None:
    state = build_state(MachineSpec(512 * MIB, min_free_kbytes=2725))
    start = recorded_start(GOLDEN)
    assert start is not None
    GoldenHarness(state, Recorded(start))
    assert violations(state) == []
    machine = GOLDEN["machine"]
    assert words(buddyinfo(state).splitlines()) == words(machine["initial_buddyinfo"])
    assert words(pagetypeinfo(state).splitlines()) == words(machine["initial_pagetypeinfo"])
    assert int(state.pcp["count"].sum()) == start.nr_on_lists
    assert buddy_counters(state)["buddy.DMA32.order10"] == 97


def test_frames_on_per_cpu_lists_follow_from_the_counters() -> None:
    # pgfree 127949, pgalloc 32 + 19783, nr_free_pages 108013.
    start = recorded_start(GOLDEN)
    assert start is not None
    assert start.nr_on_lists == 127_949 - 32 - 19_783 - 108_013


def test_a_recording_that_watches_no_buddy_lists_needs_no_layout() -> None:
    assert recorded_start({"snapshots": [{"key": {"ksm.full_scans": 1}}], "machine": {}}) is None


def test_pagetypeinfo_is_read_by_zone_type_and_order() -> None:
    zone = read_pagetypeinfo(GOLDEN["machine"]["initial_pagetypeinfo"])[ZoneId.DMA32]
    assert zone.free[0] == (1, 0, 0, 1, 9, 4, 2, 3, 2, 1, 0)
    assert zone.pageblocks == (18, 224, 6)


def test_blocks_that_the_machine_has_no_room_for_are_refused_in_one_line() -> None:
    state = build_state(MachineSpec(256 * MIB))
    lines = tuple(GOLDEN["machine"]["initial_pagetypeinfo"])
    with pytest.raises(LayoutError, match=r"^[^\n]*$"):
        GoldenLayout(state, RecordedStart(lines, 0), 1264)


def test_a_reserved_block_is_refused_in_one_line() -> None:
    lines = [
        line.replace("HighAtomic      0", "HighAtomic      1") if "DMA32" in line else line
        for line in GOLDEN["machine"]["initial_pagetypeinfo"]
    ]
    with pytest.raises(LayoutError, match=r"^pagetypeinfo: [^\n]*$"):
        read_pagetypeinfo(lines)


def test_a_layout_is_whole_before_the_harness_comes() -> None:
    state = build_state(MachineSpec(512 * MIB))
    layout = GoldenLayout(state, RecordedStart(tuple(GOLDEN["machine"]["initial_pagetypeinfo"]), 5), 1264)
    layout.close()
    assert check_frames(state) == []
    assert state.pcp["count"].sum() == 5
