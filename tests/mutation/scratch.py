"""Scratch copies of the tree, where faults are seeded and killers run. The working copy is only read."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from tests.mutation.fault import Fault, Killer, seeded

# What killers need of the tree; what is not there is left out.
PARTS: Final = ("cluster", "node", "scenarios", "shared", "tests", "pyproject.toml")
LIMIT_S: Final = 180  # of one killer: ten times what the slowest takes
TAIL: Final = 15  # lines of output that are kept
RED: Final = 1  # how both pytest and ``check`` end when something is off


class Verdict(Enum):
    """How a killer ended."""

    GREEN = "green"
    RED = "red"
    BROKEN = "broken"  # it did not run to a verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a killer."""

    verdict: Verdict
    seconds: float
    output: str  # the last lines


def copy_tree(source: Path, to: Path) -> None:
    """Copy the parts of a tree that killers need. Bytecode comes along: it is valid for the files that it is of."""
    to.mkdir()
    for part in PARTS:
        path = source / part
        if path.is_dir():
            shutil.copytree(path, to / part, ignore=shutil.ignore_patterns(".*"))
        elif path.is_file():
            shutil.copy2(path, to / part)


def seed(fault: Fault, tree: Path) -> None:
    """Put the fault into a scratch copy."""
    path = tree / fault.file
    path.write_text(seeded(fault, tree))
    for bytecode in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        bytecode.unlink()


def run_killer(killer: Killer, tree: Path) -> Outcome:
    """Run a killer in a scratch copy, uncompiled."""
    environment = dict(os.environ) | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(tree)}
    for name in ("PAGEFLEET_CHECKED", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *killer.arguments],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(Verdict.BROKEN, time.monotonic() - began, f"no end after {LIMIT_S} s")
    verdict = {0: Verdict.GREEN, RED: Verdict.RED}.get(done.returncode, Verdict.BROKEN)
    output = "\n".join(done.stdout.splitlines()[-TAIL:])
    return Outcome(verdict, time.monotonic() - began, output)


def run_seeded(fault: Fault, original: Path, tree: Path) -> Outcome:
    """Run a fault's killer in a fresh copy with the fault in it; the copy is removed again."""
    copy_tree(original, tree)
    try:
        seed(fault, tree)
        return run_killer(fault.killer, tree)
    finally:
        shutil.rmtree(tree)
