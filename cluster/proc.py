"""``pagefleet proc``: a file of /proc of a machine of a run, at a sampled time, as Linux would print it.

    RUN MACHINE FILE --at TIME  -->  proc.parquet, or what the checkpoints of an unfinished run hold  -->  text

Machines keep their files at the end and every ``metrics_every`` of simulated time. A time in between
is refused, with the nearest ones that there are, rather than answered with another's numbers.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.errors import InputError, one_line
from cluster.looks import read_proc
from cluster.progress import say
from cluster.results import FINISHED, read_manifest
from shared.units import format_duration, parse_duration

FOLDER: Final = "/proc/"
_OF_PROCESS: Final = re.compile(r"/proc/([0-9]+)/")
MAX_NAMED: Final = 8  # names that an error lists


@dataclass(frozen=True, slots=True)
class ProcText:
    """One file's text, and where and when it was read."""

    run: str
    machine: str
    file: str
    time_ns: int
    sampled_ns: list[int]  # all times at which there is one
    text: str


def read_proc_file(run: Path, machine: str, file: str, at: str | None) -> ProcText:
    """Return a file's text at time ``at``, the last that was sampled if None.

    Raises ``InputError``, in one line that says what there is, for a run, machine, file or time that is not.
    """
    manifest = read_manifest(run)
    members = {member["name"]: member["kind"] for member in manifest.get("members", [])}
    if machine not in members:
        raise InputError(f"{run}: has no machine {machine!r}; there are {_some(members)}")
    texts = read_proc(run, list(members), machine)
    if not texts:
        raise InputError(f"{run}: {_why_nothing(machine, members[machine], manifest['status'])}")
    path = file if file.startswith("/") else FOLDER + file
    if path not in texts:
        raise InputError(f"{machine}: {file!r} is not there; there are {_files(texts)}")
    of_file = texts[path]
    time_ns = max(of_file) if at is None else _sampled_time(at, sorted(of_file))
    if manifest["status"] != FINISHED:
        say(f"{run}: {manifest['status']}: its checkpoints reach to {format_duration(max(of_file))}")
    return ProcText(str(run), machine, path, time_ns, sorted(of_file), of_file[time_ns])


def as_document(read: ProcText) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "run": read.run,
        "machine": read.machine,
        "file": read.file,
        "time_ns": read.time_ns,
        "sampled_ns": read.sampled_ns,
        "text": read.text,
    }


def _why_nothing(machine: str, kind: str, status: str) -> str:
    if kind == "image":
        return f"{machine} is an image guest: it replays memory and has no kernel, so no /proc"
    if status != FINISHED:
        return f"{machine}: the run is {status}, and no checkpoint holds anything of it"
    return f"{machine}: this run kept no files of /proc"


def _sampled_time(at: str, sampled: list[int]) -> int:
    try:
        wanted = parse_duration(at)
    except ValueError as error:
        raise InputError(f"--at {at}: {one_line(error)}") from None
    if wanted in sampled:
        return wanted
    nearest = [max((time for time in sampled if time < wanted), default=None)]
    nearest.append(min((time for time in sampled if time > wanted), default=None))
    near = " and ".join(format_duration(time) for time in nearest if time is not None)
    span = f"{len(sampled)} from {format_duration(sampled[0])} to {format_duration(sampled[-1])}"
    raise InputError(f"--at {at}: is not one of the sampled times ({span}); nearest: {near}")


def _files(paths: Iterable[str]) -> str:
    """Return the names of files, those of processes once for all."""
    own = sorted({_OF_PROCESS.sub(r"/proc/PID/", path) for path in paths})
    pids = sorted({int(found[1]) for path in paths if (found := _OF_PROCESS.match(path))})
    return ", ".join(own) + (f", where PID is {_some(map(str, pids))}" if pids else "")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = [f"and {len(listed) - MAX_NAMED} more"] if len(listed) > MAX_NAMED else []
    return ", ".join(listed[:MAX_NAMED] + more)
