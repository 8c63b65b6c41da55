"""docs/proc.md's session, carried out: the form of what is printed, since the numbers are the boot's."""

import re
import shlex
from pathlib import Path

import pytest

from cluster.cli import run_command
from cluster.looks import read_proc
from cluster.run import INLINE

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "proc.md").read_text()
EXAMPLES = re.findall(r"```console\n\$ pagefleet (proc .*?)\n(.*?)```", DOCUMENT, re.DOTALL)
SMOKE = ROOT / "scenarios" / "smoke.yaml"
NUMBER = re.compile(r" *\d+")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    out = str(folder / "runs" / "look")
    assert run_command(["run", str(SMOKE), "--out", out, "--executor", INLINE, "--no-report"]) == 0
    return folder


def form(text: str) -> list[str]:
    """Return lines in which each number has given way to the column at which it ends."""
    return [NUMBER.sub(lambda match: f"#{match.end()}", line) for line in text.splitlines()]


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_the_manual_s_examples_have_the_form_of_what_is_printed(
    command: str,
    output: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    status = run_command(shlex.split(command))
    captured = capsys.readouterr()
    if output.startswith("pagefleet: "):
        assert (status, captured.out, captured.err) == (2, "", output)
    else:
        assert (status, captured.err) == (0, "")
        assert form(captured.out) == form(output)


def test_there_are_examples_of_both_kinds() -> None:
    said = [output.startswith("pagefleet: ") for _, output in EXAMPLES]
    assert (said.count(True), said.count(False)) == (2, 4)


def test_every_file_is_in_the_manual(folder: Path) -> None:
    named = set(re.findall(r"^\| `(/proc/[a-zPID_/]+)` \|", DOCUMENT, re.MULTILINE))
    kept = read_proc(folder / "runs" / "look", ["m0"], "m0")
    assert named == {re.sub("/proc/[0-9]+/", "/proc/PID/", path) for path in kept}


def test_a_file_that_is_not_there_is_refused_with_those_that_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run_command(["proc", "runs/look", "m0", "/proc/99/maps"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "pagefleet: m0: '/proc/99/maps' is not there; there are /proc/PID/maps, /proc/PID/smaps"
    )
    assert said.endswith(", /proc/zoneinfo, where PID is 1\n")
    assert said.count("\n") == 1
