r"""``python -m scenarios.alloc_ftrace``: make an allocation trace of what Linux's kmem events print.

    cd /sys/kernel/tracing
    echo 1 > events/kmem/kmalloc/enable          and kfree, kmem_cache_alloc, kmem_cache_free, ...
    cat trace_pipe > kmem.txt
    python -m scenarios.alloc_ftrace kmem.txt mine.npz

An event is a line; perf's text (``perf script``) has the same after the ``kmem:``:

    sshd-812  [001] d..2. 52.110: kmalloc: call_site=.. ptr=00f3 bytes_req=512 .. gfp_flags=GFP_ATOMIC ..   alloc
    sshd-812  [000] d..2. 52.113: kfree: call_site=.. ptr=00f3                                              its free

Events are paired by address. What was allocated before the recording began is freed by nobody here: such a free is left
out. An address that is allocated again without having been freed lost its free event; it is freed just before.
Failed allocations (an address of null) are left out. Slabs are made of frames, so ``mm_page_alloc`` reports what
the recorded kernel's object allocator took, too; the simulated one takes its own. So the frames' events count
only with ``--frames``, for recordings made without the objects' events.

Formats: Linux 6.1 include/trace/events/kmem.h. The spelling of other 4.x to 6.x kernels is read too.
Exit status: 0 done; 2 wrong usage, or a recording that cannot be read or holds no events.
"""

import argparse
import re
import sys
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from shared.alloc_kind import MAX_EVENTS, AllocKind, AllocOp
from shared.alloc_traces import AllocTrace, make_trace, save_alloc_trace
from shared.gfp_flags import parse_gfp

REFUSED: Final = 2
_LINE: Final = re.compile(
    r"\[(?P<cpu>\d+)\](?: +\S+)? +[\d.]+: (?:kmem:)?(?P<event>"
    r"kmalloc|kmalloc_node|kfree|kmem_cache_alloc|kmem_cache_alloc_node"
    r"|kmem_cache_free|mm_page_alloc|mm_page_free): (?P<rest>.*)"
)
_FIELD: Final = re.compile(r"(\w+)=(\S+)")
_NULL: Final = re.compile(r"\(nil\)|\(null\)|(0x)?0+")
_KINDS: Final = {
    "kmalloc": AllocKind.KMALLOC,
    "kmalloc_node": AllocKind.KMALLOC,
    "kmem_cache_alloc": AllocKind.OBJECT,
    "kmem_cache_alloc_node": AllocKind.OBJECT,
    "mm_page_alloc": AllocKind.FRAMES,
}
_FREES: Final = ("kfree", "kmem_cache_free", "mm_page_free")
_FRAMES: Final = ("mm_page_alloc", "mm_page_free")
_COLUMNS: Final = ("cpu", "op", "kind", "size", "gfp", "id")


class _Recorder:
    """The events as they come, and which addresses are in use."""

    def __init__(self) -> None:
        self.columns = {name: array("q") for name in _COLUMNS}
        self.in_use: dict[str, int] = {}  # address or frame -> id
        self.nr_ids = 0
        self.counts = {"frees_of_older": 0, "frees_lost": 0, "failed": 0}

    def add(self, *values: int) -> None:
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def allocate(self, cpu: int, event: str, said: dict[str, str]) -> None:
        is_frames = event in _FRAMES
        address = said["pfn"] if is_frames else said["ptr"]
        if _NULL.fullmatch(address):
            self.counts["failed"] += 1
            return
        key = f"{'frame' if is_frames else 'object'} {address}"
        if key in self.in_use:
            self.counts["frees_lost"] += 1
            self.add(cpu, AllocOp.FREE, 0, 0, 0, self.in_use[key])
        size = int(said["order"] if is_frames else said["bytes_req"])
        self.add(cpu, AllocOp.ALLOC, _KINDS[event], size, parse_gfp(said["gfp_flags"]), self.nr_ids)
        self.in_use[key] = self.nr_ids
        self.nr_ids += 1

    def free(self, cpu: int, event: str, said: dict[str, str]) -> None:
        is_frames = event in _FRAMES
        address = said["pfn"] if is_frames else said["ptr"]
        number = self.in_use.pop(f"{'frame' if is_frames else 'object'} {address}", None)
        if number is not None:
            self.add(cpu, AllocOp.FREE, 0, 0, 0, number)
        elif not _NULL.fullmatch(address):  # kfree(NULL) is none
            self.counts["frees_of_older"] += 1


def convert_ftrace(text: Iterable[str], *, frames: bool = False) -> AllocTrace:
    """Return the trace of a recording's lines; ``frames`` counts the events of frames, not those of objects.

    What was left out stands in ``meta``. Raises ``ValueError``, one line, for a line that is cut off or wrong, a
    recording without events, or with too many.
    """
    recorder = _Recorder()
    for number, line in enumerate(text, start=1):
        found = _LINE.search(line)
        if found is None or (found["event"] in _FRAMES) != frames:
            continue
        said = dict(_FIELD.findall(found["rest"]))
        try:
            add = recorder.free if found["event"] in _FREES else recorder.allocate
            add(int(found["cpu"]), found["event"], said)
        except KeyError as error:
            raise ValueError(f"line {number}: {found['event']} without {error.args[0]}=") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {found['event']}: {error}") from None
        if len(recorder.columns["id"]) > MAX_EVENTS:
            raise ValueError(f"line {number}: more than {MAX_EVENTS} events")
    if not recorder.nr_ids:
        raise ValueError("no allocation of the kmem events is in it")
    columns = {name: np.array(column, np.int64) for name, column in recorder.columns.items()}
    return make_trace("the recording", columns, {"left_out": recorder.counts})


def main(arguments: list[str] | None = None) -> int:
    """Convert a file; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.alloc_ftrace",
        description="Make an allocation trace of Linux's kmem events.",
    )
    parser.add_argument("recording", type=Path, help="text of /sys/kernel/tracing/trace, or of perf script")
    parser.add_argument("trace", type=Path, help="the .npz file to write")
    parser.add_argument(
        "--frames", action="store_true", help="use mm_page_alloc and mm_page_free, and no objects"
    )
    options = parser.parse_args(arguments)
    try:
        with options.recording.open(encoding="utf-8", errors="replace") as lines:
            trace = convert_ftrace(lines, frames=options.frames)
        save_alloc_trace(options.trace, trace)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return REFUSED
    except ValueError as error:
        sys.stderr.write(f"{options.recording}: {error}\n")
        return REFUSED
    left_out = ", ".join(f"{name} {count}" for name, count in trace.meta["left_out"].items())
    sys.stderr.write(
        f"{options.trace}: {trace.nr_events} events, {trace.nr_allocations} allocations on CPUs"
        f" {trace.cpus}; left out: {left_out}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
