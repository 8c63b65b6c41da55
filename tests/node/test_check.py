"""The simulator against counters that a real Linux 6.1 kernel showed for the same programs."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from node.check import CaseResult, GoldenError, Verdict, check_files, check_golden, load_golden

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CASES = sorted(GOLDEN.glob("*.json.gz"))


def off_rows(result: CaseResult) -> list[str]:
    return [
        f"{row.snapshot} {row.counter}: {row.kernel} {row.ours}"
        for row in result.rows
        if row.verdict.isupper()
    ]


def write_case(tmp_path: Path, golden: dict[str, Any]) -> Path:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(golden))
    return path


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_every_watched_counter_is_as_the_kernel_had_it(path: Path) -> None:
    result = check_golden(path)
    assert result.not_modelled == ""
    assert result.rows
    assert off_rows(result) == []


@pytest.mark.three_ways
@pytest.mark.parametrize("name", ["ksm_batch", "ksm_zero", "ksm_max_sharing2"])
def test_compiled_checked_and_uncompiled_runs_agree_with_the_kernel(name: str) -> None:
    assert off_rows(check_golden(GOLDEN / f"{name}.json.gz")) == []


def test_a_counter_that_differs_by_one_is_wrong(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["snapshots"][12]["key"]["ksm.pages_unshared"] += 1
    result = check_golden(write_case(tmp_path, golden))
    assert [(row.snapshot, row.counter, row.verdict) for row in result.rows if row.verdict.isupper()] == [
        (golden["snapshots"][12]["name"], "ksm.pages_unshared", Verdict.WRONG)
    ]


def test_a_counter_that_we_do_not_have_is_missing_not_zero(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["snapshots"][1]["key"] = {"vmstat.nr_of_unicorns": 0}
    result = check_golden(write_case(tmp_path, golden))
    assert any(row.verdict is Verdict.MISSING and row.ours is None for row in result.rows)
    assert not result.passed


@pytest.mark.parametrize(
    ("recorded", "good"),
    [([300, 300, 301], True), ([200, 250, 300], True), ([310, 312, 312], False), ([0, 0, 1], False)],
)
def test_a_range_is_met_within_its_width_or_two_percent(
    tmp_path: Path, recorded: list[int], good: bool
) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    batch2 = next(snapshot for snapshot in golden["snapshots"] if snapshot["name"] == "batch2")
    batch2["key"] = {"ksm.pages_volatile": recorded}  # it is 300
    result = check_golden(write_case(tmp_path, golden))
    row = next(row for row in result.rows if row.snapshot == "batch2")
    assert (row.verdict is Verdict.IN_RANGE) == good


def test_a_command_that_is_not_modelled_is_named_and_not_passed(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["workload"].append("A: mlock h")
    result = check_golden(write_case(tmp_path, golden))
    assert "'mlock' is not modelled yet" in result.not_modelled
    assert not result.passed


def test_check_files_says_what_is_off_and_returns_one(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "ksm_batch.json.gz")
    golden["snapshots"][2]["key"]["ksm.pages_volatile"] = 7
    written: list[str] = []
    assert check_files([write_case(tmp_path, golden)], written.append, json=False) == 1
    assert "WRONG" in "".join(written)
    assert "exact 134/135" in written[-1]


def test_check_files_gives_json(tmp_path: Path) -> None:
    written: list[str] = []
    assert check_files([GOLDEN / "ksm_batch.json.gz"], written.append, json=True) == 0
    cases = json.loads("".join(written))
    assert cases[0]["passed"] is True
    assert len(cases[0]["rows"]) == 135


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a recording"),
        (b"{", "not a recording"),
        (b"[]", "it has no workload"),
        (b'{"workload": []}', "it has no snapshots"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_in_one_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(GoldenError, match=complaint) as error:
        check_golden(path)
    assert "\n" not in str(error.value)


def test_a_truncated_compressed_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.json.gz"
    path.write_bytes(gzip.compress(b'{"workload": [], "snapshots": []}')[:-6])
    with pytest.raises(GoldenError, match="not a recording"):
        load_golden(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"nowhere\.json: No such file"):
        load_golden(tmp_path / "nowhere.json")
