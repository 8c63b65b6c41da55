"""What the program costs besides its operations: compiling and loading its kernels, and a machine's memory.

Each figure comes from a process of its own, which runs this module and answers with one line of JSON.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.warm import find_units, warm_unit
from shared.constants import GIB, KIB

MAX_COLD_CPU_S: Final = 120.0
MAX_WARM_S: Final = 0.5
MEMORY_PAGES: Final = 1 << 18
MAX_MACHINE_BYTES: Final = 100_000_000
MAX_BYTES_PER_FRAME: Final = 80
LARGE_BYTES: Final = 64 * GIB
SMALL_SHIFT: Final = 7  # 512 MiB: loads the kernels
MAX_LARGE_BUILD_S: Final = 3.0
MAX_LARGE_BYTES: Final = 12 * GIB // 10
ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One measured number beside its limit, or one that is only shown."""

    name: str
    value: float
    limit: float | None
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the number is within its limit, if it has one."""
        return self.limit is None or self.value <= self.limit


def program_figures() -> list[Figure]:
    """Return all figures of this module."""
    with tempfile.TemporaryDirectory(prefix="pagefleet-bench-") as cache:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _python(["-m", "node.warm", "--quiet"], cache)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        warm = json.loads(_python(["-m", "benchmarks.program", "load"], cache))
    cold_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    memory = json.loads(_python(["-m", "benchmarks.program", "memory"], ""))
    frames = memory["frames"]
    large = json.loads(_python(["-m", "benchmarks.program", "large"], ""))
    return [
        Figure(f"compiling {warm['units']} units, cold", cold_cpu_s, MAX_COLD_CPU_S, "CPU s"),
        Figure("loading them, warm", warm["seconds"], MAX_WARM_S, "s"),
        Figure(
            "a machine's memory", memory["uss"], MAX_MACHINE_BYTES + MAX_BYTES_PER_FRAME * frames, "bytes USS"
        ),
        Figure("of it, for each frame", memory["of_machine"] / frames, MAX_BYTES_PER_FRAME, "bytes"),
        Figure("building a machine of 64 GiB", large["seconds"], MAX_LARGE_BUILD_S, "s"),
        Figure("its memory then", large["uss"], MAX_LARGE_BYTES, "bytes USS"),
    ]


def _python(arguments: list[str], cache: str) -> str:
    """Run Python, with its kernels in the folder ``cache`` if one is named; return what it prints."""
    environment = dict(os.environ) | ({"PAGEFLEET_CACHE_DIR": cache} if cache else {})
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


# --- in the process of its own --------------------------------------------------------------------------


def load_everything() -> dict[str, Any]:
    """Load all units from disk; return their number and the seconds taken, imports left out."""
    units = find_units()
    for unit in units:
        importlib.import_module(unit)
    begin = time.perf_counter()
    for unit in units:
        warm_unit(unit)
    return {"units": len(units), "seconds": time.perf_counter() - begin}


def memory_of_a_machine() -> dict[str, Any]:
    """Touch all memory of a machine; return its frames, the process's USS, and the machine's part."""
    from benchmarks.translation import touched

    touched(1)  # what the kernels and Python take
    before = uss_bytes()
    state = touched(MEMORY_PAGES)
    after = uss_bytes()
    return {"frames": len(state.page), "uss": after, "of_machine": after - before}


def a_large_machine() -> dict[str, Any]:
    """Build a machine of 64 GiB; return the seconds taken, its kernels being loaded, and the process's USS."""
    from node.build import build_state
    from node.spec import MachineSpec

    build_state(MachineSpec(memory_bytes=LARGE_BYTES >> SMALL_SHIFT))
    begin = time.perf_counter()
    state = build_state(MachineSpec(memory_bytes=LARGE_BYTES))
    return {"seconds": time.perf_counter() - begin, "uss": uss_bytes(), "frames": len(state.page)}


def uss_bytes() -> int:
    """Return this process's own memory: pages that nobody shares.

    Unchanged pages of files (code of libraries) are left out: as soon as a machine has two members, they share
    them, and else the figure would depend on who else uses Python at the moment.
    """
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith("Private_Dirty"))


MEASURED: Final = {"load": load_everything, "memory": memory_of_a_machine, "large": a_large_machine}


def main() -> None:
    """Measure one thing and print it as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=tuple(MEASURED))
    print(json.dumps(MEASURED[parser.parse_args().what]()))


if __name__ == "__main__":
    main()
