"""A tree of units in a folder of its own, so that tests may edit them: files, and programs that call them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDED = ("__init__", "constants", "jit", "kernel_state", "panic", "compile_cache", "unit_digest")

STATE = """
import numpy as np
from shared.jit import use_state
from shared.kernel_state import Counters, KernelState, table

@use_state
class State(KernelState):
    panic: Counters = table(np.int64)
    cell: Counters = table(np.int64)
"""
JOINTS = '''
"""What units call in one another."""
from shared.jit import declare

@declare("node.other")
def twice(state: "State", value: int) -> int:
    """Return twice the value."""
    raise NotImplementedError

@declare("node.unit")
def down(state: "State", value: int) -> int:
    """Return how many calls it takes to count down."""
    raise NotImplementedError

@declare("node.other")
def store_at(state: "State", index: int) -> int:
    """Store at an index of the cells."""
    raise NotImplementedError
'''
CALLEE = '''
"""A callee."""
from typing import Final
from shared.jit import kernel

STEP: Final = 1

@kernel
def step(value: int) -> int:
    """Return the next value."""
    return value + STEP
'''
UNIT = '''
"""A unit."""
from enum import IntEnum
from node.callee import step
from node.joints import store_at, twice
from shared.jit import bug_on, entry, kernel

class Place(IntEnum):
    """Cells."""
    FIRST = 0
    SECOND = 1

@kernel
def put(state: "State", place: int, value: int) -> None:
    """Store a value."""
    state.cell[place] = value

@entry
def fill(state: "State", value: int) -> int:
    """Store a member's place, then another's, and an int's."""
    put(state, Place.FIRST, step(value))
    put(state, value, 5)
    put(state, Place.SECOND, Place.SECOND)
    return state.cell[Place.FIRST]

@entry
def call_other(state: "State", value: int) -> int:
    """Call across units."""
    return twice(state, value) + 1

@entry
def down(state: "State", value: int) -> int:
    """Return how many calls it takes to count down."""
    if value == 0:
        return 0
    return twice(state, value) // 2 + 1

@entry
def break_index(state: "State", index: int) -> int:
    """Store outside, then go on."""
    state.cell[index] = 7
    state.cell[0] = 1
    return 0

@entry
def break_index_elsewhere(state: "State", index: int) -> int:
    """Let another unit store outside, then go on."""
    store_at(state, index)
    state.cell[0] = 1
    return 0

@entry
def complain(state: "State", value: int) -> int:
    """End with a panic if the value is odd."""
    bug_on(state, value & 1, 9, value)
    state.cell[0] = value
    return value
'''
OTHER = '''
"""Another unit."""
from node.joints import down
from shared.jit import entry

@entry
def twice(state: "State", value: int) -> int:
    """Return twice the value, the long way round."""
    if state.cell[3] and value:
        return 2 * down(state, value - 1)
    return 2 * value

@entry
def store_at(state: "State", index: int) -> int:
    """Store at an index of the cells."""
    state.cell[index] = 7
    return 0
'''


class Tree:
    """A checkout with a few units, and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.cache = folder / "cache"
        (self.folder / "shared").mkdir(parents=True)
        (self.folder / "node").mkdir()
        for name in NEEDED:
            shutil.copy(ROOT / "shared" / f"{name}.py", self.folder / "shared")
        self.write("__init__", "")
        for name, text in {
            "state": STATE,
            "joints": JOINTS,
            "callee": CALLEE,
            "unit": UNIT,
            "other": OTHER,
        }.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        """Write the source of module ``node.<name>``."""
        (self.folder / "node" / f"{name}.py").write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in the source of module ``node.<name>``."""
        path = self.folder / "node" / f"{name}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def run(self, program: str, **environment: str) -> str:
        """Run a program in the checkout; return what it printed."""
        prologue = "from node.state import State\nstate = State(**dict.fromkeys(State.LAYOUT, 4))\n"
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("PAGEFLEET_", "NUMBA_"))
        }
        done = subprocess.run(
            [sys.executable, "-c", prologue + program],
            cwd=self.folder,
            env=inherited | {"PAGEFLEET_CACHE_DIR": str(self.cache)} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def folders(self) -> list[str]:
        """Return the names of the cache's folders."""
        return sorted(path.name for path in self.cache.glob("*-*"))

    def machine_code(self) -> dict[str, int]:
        """Return every file of machine code with the time at which it was written."""
        return {
            str(path.relative_to(self.cache)): path.stat().st_mtime_ns for path in self.cache.rglob("*.nbc")
        }
