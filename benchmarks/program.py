"""What the program costs besides its operations: compiling and loading its kernels, and a machine's memory.

Each figure comes from a process of its own, which runs this module and answers with one line of JSON.
"""

import argparse
import importlib
import json
import os
import pkgutil
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.constants import KIB
from shared.jit import ENTRIES

MAX_COLD_CPU_S: Final = 120.0
MAX_WARM_S: Final = 0.5
MEMORY_PAGES: Final = 1 << 18
MAX_MACHINE_BYTES: Final = 100_000_000
MAX_BYTES_PER_FRAME: Final = 80
ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One measured number beside its limit."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the number is within its limit."""
        return self.value <= self.limit


def program_figures() -> list[Figure]:
    """Return all figures of this module."""
    with tempfile.TemporaryDirectory(prefix="pagefleet-bench-") as cache:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        cold = _run("compile", cache)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        warm = _run("compile", cache)
    cold_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    memory = _run("memory", os.environ.get("PAGEFLEET_CACHE_DIR", ""))
    frames = memory["frames"]
    return [
        Figure(f"cold compilation of {cold['entries']} entries", cold_cpu_s, MAX_COLD_CPU_S, "CPU s"),
        Figure("loading them warm", warm["seconds"], MAX_WARM_S, "s"),
        Figure(
            "a machine's memory", memory["uss"], MAX_MACHINE_BYTES + MAX_BYTES_PER_FRAME * frames, "bytes USS"
        ),
        Figure("of it, for each frame", memory["of_machine"] / frames, MAX_BYTES_PER_FRAME, "bytes"),
    ]


def _run(what: str, cache: str) -> dict[str, Any]:
    environment = dict(os.environ) | ({"PAGEFLEET_CACHE_DIR": cache} if cache else {})
    command = [sys.executable, "-m", "benchmarks.program", what]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# --- in the process of its own --------------------------------------------------------------------------


def compile_everything() -> dict[str, Any]:
    """Compile every entry of the program, or load it from disk; return their number and the seconds taken."""
    import node
    from node.state import State

    for module in pkgutil.walk_packages(node.__path__, "node."):
        importlib.import_module(module.name)
    entries = [entry for entry in ENTRIES if entry.__module__.startswith("node.")]
    begin = time.perf_counter()
    for entry in entries:
        entry.compile(State.NUMBA_TYPE)
    return {"entries": len(entries), "seconds": time.perf_counter() - begin}


def memory_of_a_machine() -> dict[str, Any]:
    """Touch all memory of a machine; return its frames, the process's USS, and the machine's part."""
    from benchmarks.translation import touched

    touched(1)  # what the kernels and Python take
    before = _uss_bytes()
    state = touched(MEMORY_PAGES)
    after = _uss_bytes()
    return {"frames": len(state.page), "uss": after, "of_machine": after - before}


def _uss_bytes() -> int:
    """Return this process's own memory: pages that nobody shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith("Private_"))


def main() -> None:
    """Measure one thing and print it as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("compile", "memory"))
    what = parser.parse_args().what
    print(json.dumps(compile_everything() if what == "compile" else memory_of_a_machine()))


if __name__ == "__main__":
    main()
