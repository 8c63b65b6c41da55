"""Sweeps: every combination once, finished points kept."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.errors import InputError
from cluster.sweep import SweepOutcome, SweepRequest, parse_grid, print_sweep, run_sweep
from tests.cluster.fleets import BUILDER, document, write_scenario
from tests.cluster.programs import DRIVE, manifest


def sweep(folder: Path, *grid: str, settings: tuple[str, ...] = ()) -> SweepOutcome:
    scenario = write_scenario(folder, document() | {"duration": "500ms"})
    request = SweepRequest(
        scenario=scenario, settings=settings, grid=grid, out=folder / "out", builder=BUILDER, command=DRIVE
    )
    return run_sweep(request)


def test_every_combination_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = sweep(tmp_path, "hosts.0.ksm.pages_to_scan=100,200", "seed=1,2")
    points = [(row["hosts.0.ksm.pages_to_scan"], row["seed"]) for row in outcome.rows]
    assert points == [("100", "1"), ("100", "2"), ("200", "1"), ("200", "2")]
    assert {row["status"] for row in outcome.rows} == {"finished"}
    assert len({row["digest"] for row in outcome.rows}) == 4
    assert outcome.rows[0]["needed_without_merging_pages"] == 303
    assert pq.read_table(tmp_path / "out" / "sweep.parquet").to_pylist() == outcome.rows
    print_sweep(outcome)
    assert "hosts.0.ksm.pages_to_scan" in capsys.readouterr().out


def test_a_sweep_that_is_started_again_keeps_what_has_finished(tmp_path: Path) -> None:
    first = sweep(tmp_path, "seed=1,2")
    before = {row["seed"]: os.stat(row["run"]).st_ino for row in first.rows}
    started = [manifest(Path(row["run"]))["started_at"] for row in first.rows]
    again = sweep(tmp_path, "seed=1,2,3")
    assert [row["seed"] for row in again.rows] == ["1", "2", "3"]
    assert again.rows[:2] == first.rows
    assert {row["seed"]: os.stat(row["run"]).st_ino for row in again.rows[:2]} == before
    assert [manifest(Path(row["run"]))["started_at"] for row in again.rows[:2]] == started


def test_a_point_that_fails_is_shown_with_its_reason(tmp_path: Path) -> None:
    outcome = sweep(tmp_path, "machines.0.hw.cost.fail_at_epoch=3,99")
    assert [row["status"] for row in outcome.rows] == ["failed", "finished"]
    assert "m-0: asked to fail here" in outcome.rows[0]["error"]
    assert outcome.rows[0]["digest"] is None
    assert outcome.nr_failed == 1


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((), "give at least one --grid KEY=V1,V2"),
        (("seed",), "--grid seed: write it as dotted.key=value,value"),
        (("seed=1,,2",), "--grid seed=1,,2: write it as"),
        (("seed=1,1",), "--grid seed=1,1: a value is given twice"),
        (("seed=1,x",), '--set seed=x: seed: "x" is not a whole number'),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(
    tmp_path: Path, grid: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        sweep(tmp_path, *grid)
    assert not (tmp_path / "out").exists()


def test_a_grid_is_a_key_and_its_values() -> None:
    assert parse_grid("hosts.0.memory=1GiB, 2GiB") == ("hosts.0.memory", ["1GiB", "2GiB"])
