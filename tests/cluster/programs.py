"""Start ``pagefleet``, with fake members or real ones, and wait for what it writes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DRIVE = (sys.executable, str(Path(__file__).with_name("drive.py")))
REAL = (sys.executable, "-m", "cluster")
ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 60


def start(*arguments: str, cwd: Path, program: tuple[str, ...] = DRIVE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*program, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def run(*arguments: str, cwd: Path, program: tuple[str, ...] = DRIVE) -> "subprocess.CompletedProcess[str]":
    process = start(*arguments, cwd=cwd, program=program)
    out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


def wait_for_checkpoint(path: Path, process: "subprocess.Popen[str]", epoch: int) -> None:
    """Wait until cell 0 of the run at ``path`` has a checkpoint at ``epoch`` or later."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        epochs = [int(found.name.split(".")[1]) for found in path.glob("snapshots/cell-0.*.checkpoint")]
        if any(found >= epoch for found in epochs):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint at {epoch}: {process.communicate()}")


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return found
