"""Checkpoints on disk: how a run goes on after its driver died.

A checkpoint is one cell at one epoch border: the snapshots of its members, the host's answers that have yet
to reach the guests, and what has been recorded. It becomes valid by one rename, and the one before it is then
removed. What was sampled since the last checkpoint goes to files of their own, which stay, so a long
run does not write its samples over and over; looks apart from counters, so that who needs one reads but that:

    snapshots/cell-0.000050.samples   cell-0.000100.samples   cell-0.000100.checkpoint
              cell-0.000050.looks     cell-0.000100.looks

A cell is due for a checkpoint every ``checkpoint_every`` of simulated time, and skips it if checkpoints would
then have taken more than a part of its real time (``is_worth_it``): where 5 simulated seconds pass in half a
real one, there is little to lose.

All are ``| magic | hash of the rest | msgpack |``. A file that is cut short or altered is an ``InputError``.
"""

import hashlib
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import msgpack

from cluster.errors import InputError, one_line

SNAPSHOTS: Final = "snapshots"  # the folder of a run directory
MAGIC: Final = b"PFCKPT01"
_HASH_BYTES: Final = 32
# Of the real time that a cell's servers work. The target is 5 % of a run, transport included.
MAX_CHECKPOINT_PERCENT: Final = 4
_PERCENT: Final = 100

# (time in ns, member's number, counters)
Sample = tuple[int, int, dict[str, int]]
# (time in ns, member's number, encoded shared.look.Look)
PackedLook = tuple[int, int, bytes]
# (time in ns, member's number, what happened)
Event = tuple[int, int, str]


@dataclass(slots=True)
class CellCheckpoint:
    """A cell at the beginning of ``epoch``."""

    epoch: int
    snapshots: list[list[bytes]]  # a server: its members'; the host's server last
    answers: list[bytes]  # a guest: encoded HostAnswer for its next order
    finished_ns: list[int | None]  # a runner: when it finished
    killed: list[int]  # guests' indices
    events: list[Event]
    samples: list[Sample]  # since the checkpoint before; after load(), since the start
    looks: list[PackedLook] = field(default_factory=list)  # likewise


def is_worth_it(work_ns: int, spent_ns: int, nr_taken: int, max_percent: int) -> bool:
    """Decide whether a cell may take one more checkpoint.

    It has worked for ``work_ns``, and ``spent_ns`` of that went into ``nr_taken`` checkpoints. The first is
    always worth it.
    """
    return nr_taken == 0 or spent_ns * (nr_taken + 1) * _PERCENT <= nr_taken * work_ns * max_percent


class CheckpointStore:
    """The checkpoints of a run's cells, in one folder, and how much of a run they may take."""

    def __init__(self, folder: Path, max_percent: int = MAX_CHECKPOINT_PERCENT) -> None:
        self.folder = folder
        self.max_percent = max_percent

    def save(self, cell: int, checkpoint: CellCheckpoint) -> None:
        """Write a checkpoint and remove the one before."""
        before = self._epochs(cell, "checkpoint")
        write_sealed(self._path(cell, checkpoint.epoch, "samples"), checkpoint.samples)
        write_sealed(self._path(cell, checkpoint.epoch, "looks"), checkpoint.looks)
        values = [
            getattr(checkpoint, each.name)
            for each in fields(checkpoint)
            if each.name not in ("samples", "looks")
        ]
        write_sealed(self._path(cell, checkpoint.epoch, "checkpoint"), values)
        for epoch in before:
            if epoch != checkpoint.epoch:
                self._path(cell, epoch, "checkpoint").unlink(missing_ok=True)

    def load(self, cell: int) -> CellCheckpoint | None:
        """Return a cell's last checkpoint, None if there is none. Raises ``InputError`` if it is damaged."""
        epochs = self._epochs(cell, "checkpoint")
        if not epochs:
            return None
        path = self._path(cell, epochs[-1], "checkpoint")
        samples: list[Sample] = []
        for epoch in self._epochs(cell, "samples"):
            if epoch <= epochs[-1]:
                rows = read_sealed(self._path(cell, epoch, "samples"))
                samples.extend((time, member, counters) for time, member, counters in rows)
        try:
            checkpoint = CellCheckpoint(*[*read_sealed(path), samples, self.looks(cell, epochs[-1])])
            checkpoint.events = [(time, member, what) for time, member, what in checkpoint.events]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: not a checkpoint of this version: {one_line(error)}") from None
        return checkpoint

    def looks(self, cell: int, last: int | None = None) -> list[PackedLook]:
        """Return the looks at a cell's members up to the checkpoint at epoch ``last``, None for the newest."""
        until = max(self._epochs(cell, "checkpoint"), default=-1) if last is None else last
        looks: list[PackedLook] = []
        for epoch in self._epochs(cell, "looks"):
            if epoch <= until:
                rows = read_sealed(self._path(cell, epoch, "looks"))
                looks.extend((time, member, data) for time, member, data in rows)
        return looks

    def cells(self) -> list[int]:
        """Return the cells that have a checkpoint."""
        found = self.folder.glob("cell-*.checkpoint")
        return sorted({int(path.name.split(".")[0].removeprefix("cell-")) for path in found})

    def clear(self) -> None:
        """Remove all checkpoints: the run is over."""
        for kind in ("samples", "looks", "checkpoint"):
            for path in self.folder.glob(f"cell-*.{kind}"):
                path.unlink()

    def _path(self, cell: int, epoch: int, kind: str) -> Path:
        return self.folder / f"cell-{cell}.{epoch:06d}.{kind}"

    def _epochs(self, cell: int, kind: str) -> list[int]:
        paths = self.folder.glob(f"cell-{cell}.*.{kind}")
        return sorted(int(path.name.split(".")[1]) for path in paths)


def write_sealed(path: Path, value: object) -> None:
    """Write a value as msgpack with its hash, under a temporary name first."""
    packed: bytes = msgpack.packb(value)
    write_atomically(path, MAGIC + hashlib.blake2b(packed, digest_size=_HASH_BYTES).digest() + packed)


def read_sealed(path: Path) -> list[Any]:
    """Return what ``write_sealed`` was given. Raises ``InputError`` for anything else."""
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or one_line(error)}") from None
    start = len(MAGIC) + _HASH_BYTES
    packed = data[start:]
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise InputError(f"{path}: not a checkpoint of this version of pagefleet")
    if hashlib.blake2b(packed, digest_size=_HASH_BYTES).digest() != bytes(data[len(MAGIC) : start]):
        raise InputError(f"{path}: damaged: its hash does not match")
    value: list[Any] = msgpack.unpackb(packed)
    return value


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that its name always stands for something whole."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    os.replace(temporary, path)
