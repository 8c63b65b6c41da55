r"""``python -m scenarios.traces``: make a trace file of what valgrind's lackey tool records.

    valgrind --tool=lackey --trace-mem=yes --log-file=lackey.txt PROGRAM
    python -m scenarios.traces lackey.txt program.npz --skip 10M

Each line of lackey's is an access:

    I  0401ab70,3            instruction fetch: address, bytes           one access to page 0x401a
     S 1fff000768,8          store
     L 04222cfe,8            load                                        one to page 0x4222, one to 0x4223
     M 0421c7cc,4            modify

Window 0 are the first accesses, window 1 those behind the first ``--skip``; what lies between and behind is
read over. Exit status: 0 done; 2 wrong usage, or a recording that cannot be read, is none, or is too short.
"""

import argparse
import itertools
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.constants import PAGE_SHIFT
from shared.trace_kind import TraceKind
from shared.traces import END_PAGE, FIRST_PAGE, MAX_RUNS, Trace, Window, save_trace
from shared.units import parse_count

FIRST: Final = "1M"
STEADY: Final = "3M"
SKIP: Final = "10M"
KINDS: Final = {
    b"I  ": TraceKind.FETCH,
    b" L ": TraceKind.LOAD,
    b" S ": TraceKind.STORE,
    b" M ": TraceKind.MODIFY,
}
MARK_BYTES: Final = 3
NOISE: Final = (b"==", b"--")  # valgrind's own lines
HEXADECIMAL: Final = 16
LONGEST_SHOWN: Final = 40
REFUSED: Final = 2


class NotLackeyError(ValueError):
    """A recording that is wrong, in one line."""


class Recorder:
    """A window as it grows: its runs, by page number."""

    def __init__(self) -> None:
        self.page = array("q")
        self.count = array("q")
        self.kind = array("b")

    def add(self, page: int, kind: int) -> None:
        """Add one access: to the last run, or as the first of a new one."""
        if self.page and self.page[-1] == page and self.kind[-1] == kind:
            self.count[-1] += 1
        else:
            self.page.append(page)
            self.count.append(1)
            self.kind.append(kind)

    def window(self, pages: npt.NDArray[np.int64]) -> Window:
        """Return the window, its pages as indices into ``pages``."""
        index = np.searchsorted(pages, np.array(self.page))
        return Window(index, np.array(self.count), np.array(self.kind, np.uint8))


def read_lackey(lines: Iterator[bytes], first: int, skip: int, steady: int) -> Trace:
    """Return the trace of ``first`` accesses from the start and ``steady`` behind the first ``skip``.

    An access that straddles two pages counts on both. Raises ``NotLackeyError`` for a line that is none of
    lackey's, an address outside user space, or fewer than ``skip`` + 1 accesses.
    """
    windows = (Recorder(), Recorder())
    total = 0
    for number, line in enumerate(lines, 1):
        kind = KINDS.get(line[:MARK_BYTES])
        if kind is None:
            if line.startswith(NOISE) or not line.strip():
                continue
            raise NotLackeyError(f"line {number}: {_shown(line)} is no access that lackey records")
        total += 1
        if total > max(first, skip + steady):
            break
        within = [
            window
            for window, begin, length in ((windows[0], 0, first), (windows[1], skip, steady))
            if begin < total <= begin + length
        ]
        if within:
            for page, window in itertools.product(_pages_of(line, number), within):
                window.add(page, kind)
    if total <= skip:
        raise NotLackeyError(f"{total} accesses are too few: window 1 begins behind {skip} (--skip)")
    pages = np.unique(np.concatenate([np.array(window.page) for window in windows]))
    return Trace(pages, (windows[0].window(pages), windows[1].window(pages)), {"window1_skip": skip})


def _pages_of(line: bytes, number: int) -> range:
    """Return the page numbers that an access touches."""
    try:
        address, size = line[MARK_BYTES:].split(b",")
        begin, nr_bytes = int(address, HEXADECIMAL), int(size)
    except ValueError:
        nr_bytes = 0
    if nr_bytes < 1:
        raise NotLackeyError(f"line {number}: {_shown(line)} is not ADDRESS,BYTES")
    last = begin + nr_bytes - 1
    pages = range(begin >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1)
    if not FIRST_PAGE <= pages.start < pages.stop <= END_PAGE:
        raise NotLackeyError(f"line {number}: {_shown(line)} is outside user space")
    return pages


def _shown(line: bytes) -> str:
    return repr(line[:LONGEST_SHOWN].decode("latin-1").strip())


def _count(text: str) -> int:
    try:
        return parse_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: list[str] | None = None) -> int:
    """Convert the recording that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.traces", description="Make a trace file of lackey's output."
    )
    parser.add_argument("recording", type=Path, help="what lackey wrote")
    parser.add_argument("trace", type=Path, help="the .npz file to write")
    parser.add_argument(
        "--first", type=_count, default=FIRST, metavar="N", help=f"accesses of window 0 ({FIRST})"
    )
    parser.add_argument(
        "--skip", type=_count, default=SKIP, metavar="N", help=f"accesses before window 1 ({SKIP})"
    )
    parser.add_argument(
        "--steady", type=_count, default=STEADY, metavar="N", help=f"accesses of window 1 ({STEADY})"
    )
    parser.add_argument("--program", default="", metavar="TEXT", help="what ran, for whoever reads the file")
    options = parser.parse_args(arguments)
    for name in ("first", "steady"):
        if not 1 <= getattr(options, name) <= MAX_RUNS:
            parser.error(f"--{name}: {getattr(options, name)} is outside 1..{MAX_RUNS}")
    try:
        with options.recording.open("rb") as lines:
            trace = read_lackey(lines, options.first, options.skip, options.steady)
        trace.meta.update(name=options.trace.stem, program=options.program)
        save_trace(options.trace, trace)
    except NotLackeyError as error:
        sys.stderr.write(f"{options.recording}: {error}\n")
        return REFUSED
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror or error}\n")
        return REFUSED
    said = " and ".join(f"{window.nr_accesses} in {len(window.page)} runs" for window in trace.windows)
    sys.stderr.write(f"{options.trace}: {len(trace.pages)} pages, accesses {said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
