"""The command as a user meets it: exit statuses, one line for each mistake, nothing half-written."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.plan import DATA
from cluster.results import read_manifest
from node.program.program import Program
from node.program.text import ProgramError
from tests.cluster import programs
from tests.cluster.fleets import document, write_scenario


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    return write_scenario(tmp_path, document())


def inline(scenario: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return programs.run("run", str(scenario), "--executor", "inline", *arguments, cwd=scenario.parent)


def test_a_run_leaves_a_whole_run_directory(scenario: Path, tmp_path: Path) -> None:
    done = inline(scenario, "--out", "result")
    assert (done.returncode, done.stderr) == (0, "")
    result = tmp_path / "result"
    assert "Host h" in done.stdout
    assert "run: result" in done.stdout
    manifest = programs.manifest(result)
    assert manifest["status"] == "finished"
    assert manifest["digest"] in done.stdout
    assert manifest["seed"] == 1
    assert manifest["versions"]["python"].startswith("3.")
    table = pq.read_table(result / "metrics.parquet")
    assert table.column_names == ["time_ns", "machine", "counter", "value"]
    sampled = [row for row in table.to_pylist() if (row["machine"], row["counter"]) == ("m-0", "epochs")]
    assert [row["value"] for row in sampled] == list(range(5, 41, 5))
    events = [json.loads(line) for line in (result / "events.jsonl").read_text().splitlines()]
    assert events[0] == {"time_ns": 1_300_000_000, "machine": "early-0", "event": "finished"}
    assert sorted(path.name for path in (result / "snapshots").iterdir())[0] == "early-0.snapshot"
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_json_is_all_that_stdout_holds(scenario: Path) -> None:
    done = inline(scenario, "--json")
    said = json.loads(done.stdout)
    assert said["path"] == "runs/fake-1-001"
    assert said["status"] == "finished"
    host = said["summary"]["hosts"][0]
    assert host["needed_without_merging_pages"] == 100 + 101 + 102
    assert host["needed_with_merging_pages"] == 100 + 101 + 102 - 30
    assert (host["saved_from_zero_pages"], host["saved_from_other_pages"]) == (20, 10)
    assert host["slowdown"] == host["guests"][0]["slowdown"] == 1.25


def test_runs_are_numbered_and_repeat_to_the_byte(scenario: Path, tmp_path: Path) -> None:
    for number in ("001", "002"):
        assert json.loads(inline(scenario, "--json").stdout)["path"] == f"runs/fake-1-{number}"
    first, second = tmp_path / "runs" / "fake-1-001", tmp_path / "runs" / "fake-1-002"
    for name in ("metrics.parquet", "events.jsonl", "summary.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert programs.manifest(first)["digest"] == programs.manifest(second)["digest"]


def wrong(done: "subprocess.CompletedProcess[str]", status: int = 2) -> str:
    """Return the one line that a command said before it ended with ``status``."""
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("pagefleet: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("pagefleet: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "the following arguments are required: VERB (see pagefleet --help)"),
        (("fly",), "argument VERB: invalid choice: 'fly'"),
        (("run",), "the following arguments are required: SCENARIO (see pagefleet run --help)"),
        (("run", "x.yaml", "--colour"), "unrecognized arguments: --colour"),
        (("run", "x.yaml", "--seed", "-1"), "argument --seed"),
        (("run", "x.yaml", "--executor", "cloud"), "argument --executor: invalid choice: 'cloud'"),
        (("run", "x.yaml"), "x.yaml: No such file or directory"),
        (("validate",), "validate: name a SCENARIO, or use --schema"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert wrong(programs.run(*arguments, cwd=tmp_path)).startswith(expected)


def test_wrong_scenarios_leave_nothing_behind(scenario: Path, tmp_path: Path) -> None:
    said = wrong(inline(scenario, "--set", "hosts.0.memry=1GiB"))
    assert said == "--set hosts.0.memry=1GiB: hosts.0.memry: unknown key (did you mean memory?)"
    assert "no unit" in wrong(inline(scenario, "--set", "hosts.0.memory=512"))
    assert "nobody.npz" in wrong(inline(scenario, "--set", "hosts.0.guests=[{image: nobody}]"))
    (tmp_path / "cut.npz").write_bytes((DATA / "idle-a.npz").read_bytes()[:5000])
    assert "cut.npz: not a whole .npz file" in wrong(
        inline(scenario, "--set", "hosts.0.guests=[{image: cut}]")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.npz", "fake.yaml"]


def test_a_fleet_larger_than_the_machine_is_refused_before_anything_is_allocated(scenario: Path) -> None:
    said = wrong(inline(scenario, "--set", "machines.0.count=4096", "--set", "machines.0.memory=64GiB"))
    assert "the fleet needs about" in said


def test_a_member_that_cannot_be_built_leaves_nothing_behind(scenario: Path, tmp_path: Path) -> None:
    said = wrong(inline(scenario, "--set", "hosts.0.hw.cost.build_fails=1", "--out", "result"))
    assert said == "h: 67108864 bytes is less than the kernel needs"
    assert not (tmp_path / "result").exists()


def test_an_output_folder_in_use_is_refused_and_left_alone(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "notes").write_text("mine")
    assert wrong(inline(scenario, "--out", "result")) == "--out result: exists and is not an empty folder"
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["notes"]


def test_an_output_folder_that_cannot_be_written_is_refused(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert wrong(inline(scenario, "--out", "file")) == "--out file: exists and is not an empty folder"
    said = wrong(inline(scenario, "--out", "file/result"))
    assert said == "--out file/result: file is not a folder"
    said = wrong(inline(scenario, "--out", "/proc/result"))
    assert said.startswith("--out /proc/result: cannot be written: ")


def test_an_address_where_nobody_listens_is_refused_at_once(scenario: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = programs.run("run", str(scenario), "--address", address, cwd=scenario.parent)
    assert wrong(done) == f"--address {address}: cannot be reached: Connection refused"
    done = programs.run("run", str(scenario), "--address", "nonsense", cwd=scenario.parent)
    assert wrong(done) == "--address nonsense: write it as HOST:PORT, such as 10.0.0.5:6379"
    assert wrong(inline(scenario, "--address", address)) == f"--address {address}: goes with --executor ray"


def test_a_failed_run_says_so_and_keeps_the_traceback_in_its_manifest(scenario: Path, tmp_path: Path) -> None:
    said = wrong(
        inline(scenario, "--set", "machines.0.hw.cost.fail_at_epoch=25", "--out", "result"), status=1
    )
    assert said == "m-0: asked to fail here (result/manifest.json has the details)"
    manifest = programs.manifest(tmp_path / "result")
    assert manifest["status"] == "failed"
    assert "Traceback" in manifest["error_detail"]
    assert "digest" not in manifest
    assert not (tmp_path / "result" / "summary.json").exists()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a scenario that takes three seconds, and the digest of its unbroken run."""
    folder = tmp_path_factory.mktemp("slow")
    scenario = write_scenario(folder, document(sleep_us=20_000) | {"machines": []})
    done = inline(scenario, "--json", "--out", "unbroken")
    return scenario, json.loads(done.stdout)["digest"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_run_says_so_and_goes_on_with_resume(
    slow: tuple[Path, str], number: signal.Signals, status: int
) -> None:
    scenario, unbroken = slow
    name = f"by-{number.name}"
    result = scenario.parent / name
    process = programs.start("run", str(scenario), "--executor", "inline", "--out", name, cwd=scenario.parent)
    programs.wait_for_checkpoint(result, process, epoch=10)
    assert read_manifest(result)["status"] == "running"
    second = inline(scenario, "--out", name, "--resume")
    assert wrong(second) == f"--resume {name}: process {process.pid} is writing this run"
    process.send_signal(number)
    out, errors = process.communicate(timeout=programs.PATIENCE_SECONDS)
    assert (process.returncode, out) == (status, "")
    if status > 0:
        assert errors == f"pagefleet: {'interrupted' if status == 130 else 'terminated'}\n"
    assert programs.manifest(result)["status"] == read_manifest(result)["status"] == "interrupted"
    assert not (result / "summary.json").exists()
    resumed = json.loads(inline(scenario, "--out", name, "--resume", "--json").stdout)
    assert resumed["digest"] == unbroken
    assert programs.manifest(result)["resumed"] == 1
    assert (result / "metrics.parquet").read_bytes() == (
        result.parent / "unbroken" / "metrics.parquet"
    ).read_bytes()


def test_resume_refuses_what_it_cannot_go_on_with(scenario: Path, tmp_path: Path) -> None:
    assert wrong(inline(scenario, "--resume")).startswith("--resume: no interrupted run of this scenario")
    assert wrong(inline(scenario, "--resume", "--out", "gone")).startswith("gone: not a run directory")
    inline(scenario, "--set", "hosts.0.hw.cost.fail_at_epoch=25", "--out", "failed")
    said = wrong(inline(scenario, "--resume", "--out", "failed"))
    assert said == "--resume failed: holds a run of another scenario, setting or seed"


def test_resuming_a_finished_run_says_its_results_again(scenario: Path) -> None:
    first = json.loads(inline(scenario, "--json", "--out", "result").stdout)
    again = inline(scenario, "--json", "--out", "result", "--resume")
    assert json.loads(again.stdout) == first
    assert again.stderr == "pagefleet: result: has finished already\n"


def test_resume_finds_the_last_interrupted_run(scenario: Path) -> None:
    unbroken = json.loads(inline(scenario, "--json").stdout)
    (scenario.parent / "runs" / "fake-1-001").rename(scenario.parent / "unbroken")
    manifest = scenario.parent / "unbroken" / "manifest.json"
    interrupted = json.loads(manifest.read_text()) | {"status": "interrupted"}
    del interrupted["digest"]
    manifest.write_text(json.dumps(interrupted))
    (scenario.parent / "unbroken").rename(scenario.parent / "runs" / "fake-1-001")
    resumed = json.loads(inline(scenario, "--json", "--resume").stdout)
    assert (resumed["path"], resumed["digest"]) == ("runs/fake-1-001", unbroken["digest"])


def test_validate_says_what_the_scenario_holds(scenario: Path) -> None:
    done = programs.run("validate", str(scenario), cwd=scenario.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{scenario}: valid: 1 hosts, 8 guests and machines\n"
    done = programs.run("validate", "--json", str(scenario), "--seed", "5", cwd=scenario.parent)
    assert json.loads(done.stdout)["seed"] == 5


def test_check_refuses_what_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("not JSON")
    assert wrong(programs.run("check", "gone.json", cwd=tmp_path)) == "gone.json: No such file or directory"
    assert wrong(programs.run("check", "text.json", cwd=tmp_path)).startswith("text.json: not a recording: ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A: mmap h 8Q", "line 2: '8Q' is not a number such as 512P or 8M+1P*3"),
        ("A: mmap h 0", "line 2: '0' is 0: expected a size of 1 or more"),
        ("A: read h", "line 2: A has no mapping h"),
        ("A: exit now", "line 2: 'now' is not understood: expected exit"),
    ],
)
def test_a_wrong_program_is_told_in_the_same_words_everywhere(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "one.txt").write_text(f"spawn A\n{line}\n")
    (tmp_path / "lab.yaml").write_text(
        "name: lab\nduration: 1s\nmachines: [{name: m, memory: 80MiB, processes: [{program: one.txt}]}]\n"
    )
    (tmp_path / "case.json").write_text(json.dumps({"workload": ["spawn A", line], "snapshots": []}))
    for arguments in (
        ("validate", "lab.yaml"),
        ("run", "lab.yaml", "--executor", "inline"),
        ("check", "case.json"),
    ):
        assert wrong(programs.run(*arguments, cwd=tmp_path)).endswith(f": {said}"), arguments
    with pytest.raises(ProgramError) as caught:
        Program(f"spawn A\n{line}\n")
    assert str(caught.value) == said


def test_checking_invariants_is_a_setting_like_any_other(scenario: Path) -> None:
    done = inline(scenario, "--check", "--json")
    manifest = programs.manifest(scenario.parent / json.loads(done.stdout)["path"])
    assert manifest["scenario"]["check_invariants"] is True


def test_a_check_that_finds_something_ends_the_run_with_one_line(scenario: Path, tmp_path: Path) -> None:
    broken = ("--set", "hosts.0.hw.cost.audit_fails_after_epoch=20", "--out")
    assert inline(scenario, *broken, "unchecked").returncode == 0
    said = wrong(inline(scenario, *broken, "result", "--check"), status=1)
    assert said == "h: frame 7: nothing is as it was (result/manifest.json has the details)"
    assert programs.manifest(tmp_path / "result")["status"] == "failed"


def test_the_debugging_switch_shows_the_traceback(tmp_path: Path) -> None:
    code = (
        "import sys; from cluster import cli; cli.build_parser = lambda: 1 / 0; sys.exit(cli.run_command([]))"
    )
    command = [sys.executable, "-c", code]
    quiet = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (quiet.returncode, quiet.stderr) == (
        1,
        "pagefleet: internal error: ZeroDivisionError: division by zero\n",
    )
    loud = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PAGEFLEET_DEBUG": "1"}
    )
    assert "Traceback" in loud.stderr
