"""Compiling ahead: what is missing and nothing else, and next to nothing once all is there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.warm import find_units, warm
from tests.shared.units_for_tests import ROOT, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    shutil.copy(ROOT / "node" / "warm.py", tree.folder / "node")
    return tree


def run_warm(tree: Tree, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("PAGEFLEET_", "NUMBA_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "node.warm", *arguments],
        cwd=tree.folder,
        env=inherited | {"PAGEFLEET_CACHE_DIR": str(tree.cache)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_unit_is_compiled_once_and_reported_on_stderr(tree: Tree) -> None:
    done = run_warm(tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert sorted(line.split("] ")[1].split(":")[0] for line in lines[:-1]) == ["node.other", "node.unit"]
    assert lines[-1].startswith("8 entries of 2 units compiled in ")
    before = tree.machine_code()
    assert tree.run("from node.unit import call_other\nprint(call_other(state, 4))") == "9"
    assert tree.machine_code() == before


def test_what_is_warm_is_left_alone_without_importing_numba(tree: Tree) -> None:
    run_warm(tree)
    before_s = os.times().children_user
    done = run_warm(tree, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "numba" not in {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert os.times().children_user - before_s < 0.5


def test_an_edit_warms_the_units_that_it_concerns(tree: Tree) -> None:
    run_warm(tree)
    tree.edit("callee", "STEP: Final = 1", "STEP: Final = 3")
    lines = run_warm(tree).stderr.splitlines()
    assert any("node.unit: 6 entries compiled" in line for line in lines)
    assert any("node.other: cached" in line for line in lines)


def test_a_cache_that_was_removed_is_filled_again(tree: Tree) -> None:
    run_warm(tree)
    for folder in tree.cache.glob("node.unit-*"):
        shutil.rmtree(folder)
    assert "node.unit: 6 entries compiled" in run_warm(tree).stderr


def test_units_may_be_named_and_quiet_says_nothing(tree: Tree) -> None:
    done = run_warm(tree, "--quiet", "node.other")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {folder.split("-")[0] for folder in tree.folders()} == {"node.other"}
    assert run_warm(tree, "node.nothing").returncode == 2


def test_a_unit_that_does_not_compile_ends_with_1(tree: Tree) -> None:
    tree.edit("other", "return 2 * value", "return 2 * unknown")
    done = run_warm(tree)
    assert done.returncode == 1
    assert "node.other: " in done.stderr
    assert "Traceback" not in done.stderr


def test_uncompiled_there_is_nothing_to_do(tree: Tree) -> None:
    done = run_warm(tree, NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert tree.folders() == []


def test_the_units_of_this_program_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"node.build", "node.fault.fault", "node.ksm.ksmd", "node.sched"} <= set(find_units())
    assert "node.pool" not in find_units()  # kernels only
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert warm() == []
