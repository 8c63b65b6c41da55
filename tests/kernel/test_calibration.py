"""What the driver costs, from the counters of the workload that measures it."""

import pytest

from node.golden_harness import FILE_FIGURES, HarnessFigures, harness_figures
from tests.kernel import calibration
from tests.kernel.errors import BootError
from tests.kernel.recording import Run, Snapshot


def measured() -> Run:
    # name, anonymous pages, page tables, faults, reuses, A's and C's faults: as a machine had them
    rows = [
        ("boot", 1664, 12, 1718, 0, 0, 0),
        ("spawned", 1700, 17, 1773, 0, 55, 0),
        ("spawned_again", 1736, 22, 1828, 0, 55, 0),
        ("did_one", 1736, 22, 1828, 0, 55, 0),
        ("executed", 1736, 22, 1854, 1, 57, 0),
        ("forked", 1739, 27, 1875, 3, 60, 18),
        ("parent_did_one", 1739, 27, 1875, 3, 60, 18),
        ("child_did_one", 1739, 27, 1875, 3, 60, 18),
    ]
    return Run(
        snapshots=[
            Snapshot(
                name,
                0,
                {
                    "vmstat.nr_anon_pages": anon,
                    "vmstat.nr_page_table_pages": tables,
                    "vmstat.pgfault": faults,
                    "vmstat.pgreuse": reuses,
                    "proc.A.minflt": parent,
                    "proc.C.minflt": child,
                },
            )
            for name, anon, tables, faults, reuses, parent, child in rows
        ]
    )


def test_figures_are_those_that_a_check_takes() -> None:
    figures = calibration.harness_figures(measured())
    assert harness_figures({"harness": figures}) == HarnessFigures(
        controller_anon_pages=1664,
        controller_lone_pages=6,
        spawn_anon_pages=36,
        spawn_lone_pages=2,
        spawn_faults=55,
        fork_parent_copies=3,
        fork_child_faults=18,
        fork_child_copies=0,
        fork_child_reuses=2,
        parent_reuses=0,
        spawn_top_pages=38,
        **(
            dict.fromkeys(FILE_FIGURES, 0)
            | {"spawn_stack_pages": 24, "program_faults": 26, "program_parent_faults": 2}
        ),
        program_reuses=1,
    )


def test_the_public_cases_figures_make_their_page_tables() -> None:
    assert calibration.lone_pages(1264, 16) == HarnessFigures().controller_lone_pages
    assert calibration.lone_pages(101, 5) == HarnessFigures().spawn_lone_pages


def test_a_driver_whose_cost_is_not_constant_is_refused() -> None:
    run = measured()
    run.snapshots[-1].values["vmstat.pgfault"] += 1
    with pytest.raises(BootError, match="a command that touches nothing causes faults"):
        calibration.harness_figures(run)
