"""What the benchmarks of whole commands rely on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.epochs import SMOKE, descendants, guest_budget_bytes, host_budget_bytes, run_command
from shared.constants import MIB


def test_descendants_are_found_through_their_parents() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        found: list[int] = []
        while not found:
            assert child.poll() is None
            found = descendants(child.pid)
        assert {child.pid, *found} <= set(descendants(os.getpid()))
        child.communicate(b"\n")


def test_budgets_grow_with_frames_and_mergeable_pages() -> None:
    frames = 1792 * MIB // 4096
    assert host_budget_bytes() > 100_000_000 + 80 * frames
    assert guest_budget_bytes() == 100_000_000 + 80 * (1 << 18)


def test_a_command_is_timed_to_its_end(tmp_path: Path) -> None:
    measured = run_command(SMOKE, tmp_path / "run", "inline")
    assert measured["seconds"] > 0
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_command_that_fails_has_no_figures(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 2"):
        run_command(tmp_path / "gone.yaml", tmp_path / "run", "inline")
