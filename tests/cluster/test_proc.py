"""``pagefleet proc`` as a user meets it."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.cluster.fleets import document, write_scenario


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("proc")
    scenario = write_scenario(folder, document())
    done = programs.run(
        "run", str(scenario), "--executor", "inline", "--no-report", "--out", "done", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def proc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return programs.run("proc", *arguments, cwd=folder)


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    return line.removeprefix("pagefleet: ")


def test_a_file_is_printed_and_nothing_else(folder: Path) -> None:
    done = proc(folder, "done", "m-0", "/proc/buddyinfo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "epoch 40\n", "")


def test_any_sampled_time_can_be_asked_for(folder: Path) -> None:
    assert proc(folder, "done", "h", "buddyinfo", "--at", "500ms").stdout == "epoch 5\n"
    assert proc(folder, "done", "h", "buddyinfo", "--at", "3s").stdout == "epoch 30\n"


def test_a_machine_that_finishes_between_two_samples_has_its_end(folder: Path) -> None:
    assert proc(folder, "done", "early-0", "buddyinfo", "--at", "1.3s").stdout == "epoch 13\n"


def test_json_says_what_was_read_and_when(folder: Path) -> None:
    said = json.loads(proc(folder, "done", "h", "buddyinfo", "--at", "1s", "--json").stdout)
    assert said.pop("sampled_ns") == [500_000_000 * number for number in range(1, 9)]
    assert said == {
        "run": "done",
        "machine": "h",
        "file": "/proc/buddyinfo",
        "time_ns": 1_000_000_000,
        "text": "epoch 10\n",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such", "h", "buddyinfo"), "no-such: not a run directory: there is no manifest.json in it"),
        (
            ("done", "x", "buddyinfo"),
            "done: has no machine 'x'; there are h, h.guest-0, h.guest-1, h.guest-2, m-0, m-1, m-2,",
        ),
        (("done", "h", "/proc/cpuinfo"), "h: '/proc/cpuinfo' is not there; there are /proc/buddyinfo"),
        (
            ("done", "h", "buddyinfo", "--at", "1.2s"),
            "--at 1.2s: is not one of the sampled times (8 from 500 ms to 4 s); nearest: 1 s and 1.5 s",
        ),
        (
            ("done", "h", "buddyinfo", "--at", "1h"),
            "--at 1h: is not one of the sampled times (8 from 500 ms to 4 s); nearest: 4 s",
        ),
        (("done", "h", "buddyinfo", "--at", "soon"), "--at soon: 'soon' is not a time such as 20ms"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert refused(proc(folder, *arguments)).startswith(said)


def test_a_run_without_files_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "manifest.json").write_bytes((folder / "done" / "manifest.json").read_bytes())
    assert refused(proc(tmp_path, "bare", "h", "buddyinfo")) == "bare: h: this run kept no files of /proc"


def test_an_interrupted_run_has_the_files_up_to_its_checkpoint(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, document(sleep_us=20_000))
    run = programs.start("run", str(scenario), "--executor", "inline", "--out", "cut", cwd=tmp_path)
    programs.wait_for_checkpoint(tmp_path / "cut", run, epoch=10)
    run.kill()
    run.communicate()
    done = proc(tmp_path, "cut", "h", "buddyinfo", "--at", "1s")
    assert (done.returncode, done.stdout) == (0, "epoch 10\n")
    assert done.stderr.startswith("pagefleet: cut: interrupted: its checkpoints reach to ")
