"""Runs merged into a golden."""

import pytest

from tests.kernel.errors import BootError
from tests.kernel.golden import is_event, is_watched, make_golden, merge, zones
from tests.kernel.recording import Run, Snapshot
from tests.kernel.script import Workload, parse_workload

TEXT = "#! data: no\n#! watch: pgfault nr_* proc.*.minflt\nspawn A\nsnapshot one\n"


def run_with(fault: int, anon: int, minflt: int = 55) -> Run:
    boot = Snapshot("boot", 1000, {"vmstat.pgfault": 100, "vmstat.nr_anon_pages": 10, "vmstat.nr_dirty": 0})
    one = Snapshot(
        "one",
        1100,
        {
            "vmstat.pgfault": 100 + fault,
            "vmstat.nr_anon_pages": anon,
            "vmstat.nr_dirty": 0,
            "proc.A.minflt": minflt,
            "ksm.run": 0,
        },
    )
    return Run(snapshots=[boot, one])


@pytest.fixture
def workload() -> Workload:
    return parse_workload("case", TEXT)


def test_a_number_that_all_runs_have_is_bare_and_others_are_ranges() -> None:
    assert merge([7, 7, 7]) == 7
    assert merge([9, 7, 8]) == [7, 8, 9]
    assert merge([9, 7]) == [7, 7, 9]


def test_events_are_watched_as_changes_and_gauges_as_levels(workload: Workload) -> None:
    golden = make_golden(workload, [run_with(5, 12), run_with(6, 12), run_with(5, 12)], [1.0, 2.0, 3.0], {})
    assert golden["snapshots"][1]["key"] == {
        "vmstat.pgfault (delta)": [5, 5, 6],
        "vmstat.nr_anon_pages": 12,
        "vmstat.nr_dirty": 0,
        "proc.A.minflt (delta)": 55,
    }
    assert "key" not in golden["snapshots"][0]
    assert golden["deterministic_watched"] == [
        "proc.A.minflt (delta)",
        "vmstat.nr_anon_pages",
        "vmstat.nr_dirty",
    ]
    assert golden["noisy_watched"]["vmstat.pgfault (delta)"] == {
        "at": "one",
        "min_med_max": [5, 5, 6],
        "spread": 1,
        "rel": 0.2,
    }


def test_levels_leave_out_zeroes_of_vmstat_and_events_after_the_boot(workload: Workload) -> None:
    golden = make_golden(workload, [run_with(5, 12)], [1.0], {})
    assert golden["snapshots"][0]["level"] == {"vmstat.pgfault": 100, "vmstat.nr_anon_pages": 10}
    assert golden["snapshots"][1]["level"] == {"vmstat.nr_anon_pages": 12, "proc.A.minflt": 55, "ksm.run": 0}


def test_changes_are_listed_where_some_run_changed(workload: Workload) -> None:
    golden = make_golden(workload, [run_with(0, 10), run_with(1, 10)], [1.0, 1.0], {})
    assert golden["snapshots"][1]["delta_from_previous"] == {"vmstat.pgfault": [0, 0, 1], "proc.A.minflt": 55}


def test_a_run_that_lacks_a_snapshot_is_an_error(workload: Workload) -> None:
    run = run_with(5, 12)
    run.snapshots.pop()
    with pytest.raises(BootError, match="did not take the workload's snapshots"):
        make_golden(workload, [run], [1.0], {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vmstat.pgfault", True),
        ("vmstat.nr_written", True),
        ("vmstat.workingset_nodes", True),
        ("vmstat.nr_free_pages", False),
        ("ksm.full_scans", True),
        ("ksm.pages_shared", False),
        ("proc.A.majflt", True),
        ("proc.A.VmPTE", False),
        ("blk.vda.reads", True),
        ("mincore.f16.resident", False),
    ],
)
def test_event_counters_are_those_of_the_public_goldens(name: str, expected: bool) -> None:
    assert is_event(name) is expected


def test_a_pattern_without_a_group_is_of_vmstat() -> None:
    assert is_watched("vmstat.pgfault", ["pgf*"])
    assert not is_watched("ksm.pgfault", ["pgfault"])
    assert is_watched("proc.A.map.h.ksm", ["proc.*.map.h.ksm"])


ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 0
  pages free     3808
        boost    0
        min      22
        low      27
        high     32
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 433, 433)
      nr_free_pages 3808
  pagesets
    cpu: 0
              count: 4
              high:  27
              batch: 1
  vm stats threshold: 4
  start_pfn:           1
Node 0, zone  Movable
  pages free     0
        managed  0
""".splitlines()


def test_zones_have_watermarks_and_per_cpu_sizes_and_none_is_empty() -> None:
    assert zones(ZONEINFO) == [
        {
            "zone": "DMA",
            "pages_free": 3808,
            "boost": 0,
            "min": 22,
            "low": 27,
            "high": 32,
            "spanned": 4095,
            "present": 3998,
            "managed": 3840,
            "protection": [0, 433, 433],
            "pcp_high": 27,
            "pcp_batch": 1,
            "start_pfn": 1,
        }
    ]
