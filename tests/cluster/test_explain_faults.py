"""``pagefleet explain faults``: the tree of a run's machine, with how often each branch ran."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import InputError
from cluster.explain_faults import explain_faults, lines_of
from cluster.report_data import History, RunData
from tests.cluster import programs
from tests.cluster.report_runs import write_run


def run_with(**counters: int) -> RunData:
    """A run of a machine m, whose counters rose to these from half of them."""
    times = np.array([1, 2], np.int64)
    values = {f"fault.{name}": np.array([last // 2, last], np.int64) for name, last in counters.items()}
    members = [{"name": "m", "kind": "machine", "host": None}]
    return RunData(Path("done"), {"members": members}, members, {"m": History(times, values)}, [])


def test_each_branch_has_its_last_count_and_a_question_the_sum_of_its_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_with(bad_area=1, bad_access=0, kernel_fixup=2, anon_new_page=6000, anon_zero_page=8)
    monkeypatch.setattr("cluster.explain_faults.read_run", lambda _path: run)
    lines = list(lines_of(explain_faults(Path("done"), "m")))
    assert lines[0] == "       6,011  CR2 in vmalloc's range, era lecture?"
    counts = {line[12:].strip(): line[:12].strip() for line in lines}
    assert counts["no: in kernel mode?"] == "3"
    assert counts["yes: write?"] == "6,008"
    assert counts["yes: a frame of zeroes"] == "6,000"
    assert counts["yes: SIGSEGV, SEGV_ACCERR"] == ""


def test_a_run_without_such_counts_and_a_machine_that_is_not_there_are_one_line_each(tmp_path: Path) -> None:
    write_run(tmp_path / "done")
    with pytest.raises(InputError, match="this run kept no counts of how faults ended"):
        explain_faults(tmp_path / "done", "big")
    with pytest.raises(InputError, match="has no machine 'nobody'; there are big, "):
        explain_faults(tmp_path / "done", "nobody")
    done = programs.run("explain", "faults", "done", "nobody", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_json_has_a_branch_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.explain_faults.read_run", lambda _path: run_with(wp_reused=5))
    said = json.loads(json.dumps(explain_faults(Path("done"), "m")))
    assert (said["machine"], said["time_ns"]) == ("m", 2)
    assert [branch for branch in said["branches"] if branch["counter"] == "fault.wp_reused"] == [
        {
            "depth": 8,
            "words": "exclusive, or of one user: reuse: nobody else has the page",
            "counter": "fault.wp_reused",
            "times": 5,
        }
    ]
