"""What a recording says was in memory before its first command, in a machine built for it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from node.build import build_state
from node.counters import VmStat
from node.golden_harness import GoldenHarness, Recorded
from node.golden_machine import machine_of
from node.golden_memory import recorded_zones
from node.invariants import violations
from node.phys.zone import ZoneId

pytestmark = pytest.mark.three_ways

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).resolve().parents[1] / "golden" / "oom_select.json.gz").read_bytes())
)


def test_the_harness_leaves_as_much_free_and_locked_as_the_recording_says() -> None:
    state = build_state(machine_of(GOLDEN))
    harness = GoldenHarness(state, Recorded(zones=recorded_zones(GOLDEN)))
    assert violations(state) == []
    for zone in GOLDEN["machine"]["zones"]:
        own = state.zone[ZoneId[zone["zone"]]]
        assert (own.managed, own.nr_free) == (zone["managed"], zone["pages_free"])
    boot = GOLDEN["snapshots"][0]["level"]
    for stat in (
        *(VmStat.NR_ANON_PAGES, VmStat.NR_MLOCK, VmStat.NR_UNEVICTABLE, VmStat.NR_MAPPED),
        *(VmStat.NR_FILE_PAGES, VmStat.NR_SHMEM, VmStat.NR_INACTIVE_ANON, VmStat.NR_PAGE_TABLE_PAGES),
    ):
        assert state.vm_stat[stat] == boot[f"vmstat.{stat.name.lower()}"], stat.name
    parent = harness.spawn()
    assert (state.mm[parent].nr_anon, state.mm[parent].nr_file, state.mm[parent].nr_shmem) == (101, 200, 1)
    assert violations(state) == []


def test_a_recording_without_zones_says_nothing_of_them() -> None:
    assert recorded_zones({}) == {}
    assert recorded_zones({"machine": {"zones": [{"zone": "DMA", "managed": 3840}, {"zone": "Moon"}]}}) == {}
