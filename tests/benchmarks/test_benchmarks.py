"""The benchmarks: each twin does what its kernel does, on small machines; and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ksm, slub
from benchmarks.measure import TwinDiffersError, measure
from benchmarks.translation import fault_suite, suite
from benchmarks.twin import NoCompilerError, Twins, compile_twins
from node.state import State

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = {
    each.name: each
    for each in (
        *suite(hits=3000, walks=3000, walk_pages=2000),
        *fault_suite(fault_pages=2000),
        *ksm.suite(pages=1000),
        *slub.suite(pairs=3000, mixed=3000, nr_live=256),
    )
}


@pytest.fixture(scope="module")
def twins() -> Twins:
    return compile_twins()


@pytest.mark.parametrize("name", SMALL)
def test_a_twin_leaves_the_state_that_the_kernel_leaves(name: str, twins: Twins) -> None:
    result = measure(SMALL[name], twins)
    assert result.ours_per_s > 0
    assert result.c_per_s > 0


def test_a_twin_that_does_something_else_is_found(twins: Twins) -> None:
    class Forgetful(Twins):
        def call(self, name: str, state: State, *ints: int) -> int:
            result = twins.call(name, state, *ints)
            state.hw_event[0] -= 1
            return result

    with pytest.raises(TwinDiffersError, match="TLB hit: table hw_event"):
        measure(SMALL["TLB hit"], Forgetful(twins._library))


def test_a_twin_that_returns_something_else_is_found(twins: Twins) -> None:
    class Hasty(Twins):
        def call(self, name: str, state: State, *ints: int) -> int:
            return -twins.call(name, state, *ints)

    with pytest.raises(TwinDiffersError, match="unmap: returns 2000, its twin -2000"):
        measure(SMALL["unmap"], Hasty(twins._library))


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | ({} if path is None else {"PATH": path})
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_without_gcc_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("TLB", path=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "benchmarks: gcc is not installed, and the C twins need it (apt-get install gcc)"
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCompilerError):
        compile_twins()


def test_a_name_that_no_benchmark_has_is_refused() -> None:
    done = run("warp")
    assert (done.returncode, done.stderr) == (2, "benchmarks: no name contains warp\n")


def test_a_file_in_no_folder_is_refused_before_anything_runs() -> None:
    done = run("TLB", "--json", "/nowhere/figures.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "benchmarks: /nowhere/figures.json: its folder cannot be written to\n"
