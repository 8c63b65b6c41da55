"""Compiling ahead: every unit that the cache does not hold, in parallel processes.

    python -m node.warm                  all units of node and scenarios
    python -m node.warm node.fault.fault    these

A unit is a file with an ``@entry``. Left alone, it is compiled at its first call, in the middle of a run and
in every process that comes too early for the others' result; so whoever starts processes warms first.

When all is warm, this must cost next to nothing, and numba alone takes half a second to import. So success
leaves a *stamp*: a file named by a hash of every source file and of what else decides about machine code. It
lists the folders that were found complete; while they exist, there is nothing to do.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from shared.unit_digest import ROOT, cache_home, unit_files

FOLDERS: Final = ("node", "scenarios")
_SOURCES: Final = ("node", "scenarios", "shared")
_ENTRY: Final = re.compile(r"^@entry$", re.MULTILINE)
_CPU_LINES: Final = re.compile(r"^(model name|flags)\s*:.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Warmed:
    """What became of one unit."""

    unit: str
    folder: str  # that its machine code is in
    nr_compiled: int  # entries that the cache did not hold
    cpu_s: float  # that compiling or loading them took


class CompileError(RuntimeError):
    """A unit that the compiler refuses, with what it said."""


def find_units() -> list[str]:
    """Return the modules that have entries, sorted."""
    return sorted(_module(path) for path in _python_files(FOLDERS) if _ENTRY.search(path.read_text()))


def warm(units: list[str] | None = None, progress: Callable[[Warmed], None] | None = None) -> list[Warmed]:
    """Compile what the cache does not hold of ``units`` (all of them if None); return what was looked at.

    Nothing is looked at when all is known to be warm, or when nothing is compiled (NUMBA_DISABLE_JIT).
    Uses a process a CPU. Raises ``CompileError`` for a unit that does not compile.
    """
    wanted = find_units() if units is None else units
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return []
    stamp = _stamp(wanted)
    if _is_fresh(stamp):
        return []
    done: list[Warmed] = []
    nr_workers = max(1, min(len(wanted), len(os.sched_getaffinity(0))))
    with ProcessPoolExecutor(nr_workers, mp_context=get_context("spawn")) as pool:
        # The largest first, so that none is left alone at the end.
        waiting: list[Future[Warmed]] = [
            pool.submit(warm_unit, unit) for unit in sorted(wanted, key=_nr_bytes, reverse=True)
        ]
        for future in as_completed(waiting):
            done.append(future.result())
            if progress is not None:
                progress(done[-1])
    stamp.parent.mkdir(parents=True, exist_ok=True)
    partial = stamp.with_suffix(f".{os.getpid()}")
    partial.write_text("".join(f"{found.folder}\n" for found in done))
    partial.replace(stamp)
    return done


def warm_unit(unit: str) -> Warmed:
    """Compile, or load, all entries of a unit (in a worker process)."""
    from node.state import State
    from shared.compile_cache import folder_of
    from shared.jit import Entry
    from shared.kernel_state import KernelState

    module = import_module(unit)
    classes = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == unit
    ]
    state_class = next((found for found in classes if issubclass(found, KernelState)), State)
    entries = [
        value for value in vars(module).values() if isinstance(value, Entry) and value.__module__ == unit
    ]
    before = time.process_time()
    try:
        nr_compiled = sum(made.compile(state_class.NUMBA_TYPE).cache_hits == 0 for made in entries)
    except Exception as error:  # numba's errors do not travel between processes
        raise CompileError(f"{unit}: {error}") from None
    return Warmed(unit, folder_of(_path(unit)).name, nr_compiled, time.process_time() - before)


# --- what is warm ---------------------------------------------------------------------------------------


def _stamp(units: list[str]) -> Path:
    """Return the file that says, by its being there, that ``units`` are compiled as they stand."""
    digest = hashlib.sha256(f"{sys.version} {metadata.version('numba')} {units}".encode())
    for name in sorted(os.environ):
        if name.startswith("NUMBA_") or name == "PAGEFLEET_CHECKED":
            digest.update(f"{name}={os.environ[name]};".encode())
    with suppress(OSError):
        digest.update(repr(sorted(set(_CPU_LINES.findall(Path("/proc/cpuinfo").read_text())))).encode())
    for path in _python_files(_SOURCES):
        digest.update(f"{_module(path)}:".encode() + path.read_bytes())
    return cache_home() / "warm" / digest.hexdigest()[:16]


def _is_fresh(stamp: Path) -> bool:
    try:
        folders = stamp.read_text().split()
    except OSError:
        return False
    return all((cache_home() / folder).is_dir() for folder in folders)


def _python_files(folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _path(unit: str) -> Path:
    return ROOT / Path(*unit.split(".")).with_suffix(".py")


def _nr_bytes(unit: str) -> int:
    """Return the size of a unit's sources, which its compile time follows."""
    return sum(path.stat().st_size for path in unit_files(_path(unit))[0])


# --- command line ---------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Warm the units named, or all; progress goes to stderr. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m node.warm", description="Compile kernels ahead of their first call."
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "unit", nargs="*", help="modules with entries, as node.fault.fault; all if none is named"
    )
    options = parser.parse_args(arguments)
    known = find_units()
    unknown = sorted(set(options.unit) - set(known))
    if unknown:
        parser.error(f"{unknown[0]}: no module with an @entry")
    units = options.unit or known
    nr_done = 0

    def show(found: Warmed) -> None:
        nonlocal nr_done
        nr_done += 1
        what = f"{found.nr_compiled} entries compiled" if found.nr_compiled else "cached"
        _say(options.quiet, f"[{nr_done}/{len(units)}] {found.unit}: {what}, {found.cpu_s:.1f} CPU s")

    try:
        done = warm(units, show)
    except CompileError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    nr_compiled = sum(found.nr_compiled for found in done)
    if nr_compiled:
        total_s = sum(found.cpu_s for found in done)
        _say(options.quiet, f"{nr_compiled} entries of {len(done)} units compiled in {total_s:.1f} CPU s")
    return 0


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
