import json
import os
from pathlib import Path

import pytest

from cluster.coordinator import FleetResult
from cluster.errors import InputError
from cluster.results import RunDirectory, digest_of, new_manifest, read_manifest

SCENARIO = {"name": "lab", "seed": 1}


def manifest() -> dict[str, object]:
    return new_manifest(SCENARIO, Path("lab.yaml"), "inline")


def result(**changes: object) -> FleetResult:
    values = {
        "end_ns": 10,
        "digests": ["aa", "bb"],
        "counters": [{}, {}],
        "snapshots": [b"", b""],
        "samples": [(5, 0, {"x": 1, "y": 2}), (5, 1, {"x": 3})],
        "events": [],
        "cpu_ns": 0,
    }
    return FleetResult(**(values | changes))  # type: ignore[arg-type]


def test_a_new_directory_says_interrupted_and_reads_as_running(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", manifest())
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "interrupted"
    assert read_manifest(tmp_path / "run")["status"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("driver", [{"pid": 1 << 22}, {"start_time": "1"}, {"boot_id": "another"}])
def test_a_run_whose_driver_has_gone_reads_as_interrupted(tmp_path: Path, driver: dict[str, object]) -> None:
    run = RunDirectory.create(tmp_path / "run", manifest())
    assert run.manifest["driver"]["pid"] == os.getpid()
    run.write_manifest(driver=run.manifest["driver"] | driver)
    assert read_manifest(tmp_path / "run")["status"] == "interrupted"


def test_an_empty_folder_may_become_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunDirectory.create(tmp_path / "run", manifest())
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    for name in ("lab-1-002", "lab-1-old", "lab-10-007"):
        (tmp_path / name).mkdir()
    assert RunDirectory.create_numbered(tmp_path, "lab-1", manifest()).path.name == "lab-1-003"
    assert RunDirectory.create_numbered(tmp_path, "lab-1", manifest()).path.name == "lab-1-004"
    assert RunDirectory.create_numbered(tmp_path / "new", "lab-1", manifest()).path.name == "lab-1-001"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "damaged"), ("[]", "damaged: not a mapping"), ('{"format": 99}', "format 99 is not 1")],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=expected):
        read_manifest(tmp_path)


def test_the_digest_covers_states_and_samples_and_no_order_of_counters() -> None:
    names = ["a", "b"]
    digest = digest_of(names, result())
    assert digest_of(names, result(samples=[(5, 0, {"y": 2, "x": 1}), (5, 1, {"x": 3})])) == digest
    changes: list[dict[str, object]] = [
        {"digests": ["aa", "bc"]},
        {"samples": [(5, 0, {"x": 1, "y": 2})]},
        {"samples": [(5, 0, {"x": 1, "y": 2}), (5, 1, {"x": 4})]},
        {"samples": [(6, 0, {"x": 1, "y": 2}), (5, 1, {"x": 3})]},
    ]
    assert len({digest, *(digest_of(names, result(**change)) for change in changes)}) == 1 + len(changes)
    assert digest_of(names, result(cpu_ns=5)) == digest
