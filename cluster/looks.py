"""Looks at machines, in the run directory: the files of /proc and the pictures of memory at every sampled time.

    proc.parquet      time_ns, machine, file, text
    memory.parquet    time_ns, machine, cell_order, zones, uses, orders      one picture a row

One row group a machine, by time, so that one machine is read without the others, and what changes little from
one time to the next takes little room. A run that has not finished has its looks beside its checkpoints instead,
as far as those reach. Looks are no part of a run's digest: they show its state, which is.
"""

import json
import os
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from cluster.checkpoints import SNAPSHOTS, CheckpointStore, PackedLook
from cluster.errors import InputError, one_line
from shared.look import Look, MemoryPicture, PicturedZone, decode_look

PROC: Final = "proc.parquet"
MEMORY: Final = "memory.parquet"
Rows = list[tuple[int, Look]]


def write_looks(folder: Path, names: list[str], looks: list[PackedLook]) -> None:
    """Write the two files of a finished run; ``looks`` are by member, then time."""
    import pyarrow as pa

    proc = pa.schema(
        [
            ("time_ns", pa.int64()),
            ("machine", pa.string()),
            ("file", pa.string()),
            ("text", pa.string()),
        ]
    )
    memory = pa.schema(
        [
            ("time_ns", pa.int64()),
            ("machine", pa.string()),
            ("cell_order", pa.int64()),
            ("zones", pa.string()),
            ("uses", pa.binary()),
            ("orders", pa.binary()),
        ]
    )
    _write(folder / PROC, proc, names, looks, _proc_rows)
    _write(folder / MEMORY, memory, names, looks, _memory_rows)


def read_proc(run: Path, names: list[str], machine: str) -> dict[str, dict[int, str]]:
    """Return a machine's texts by file, then by time in ns, ascending.

    Empty if it has none. Raises ``InputError`` for a file that is damaged.
    """
    if (run / PROC).is_file():
        rows = [(row["time_ns"], row["file"], row["text"]) for row in _read(run / PROC, machine)]
    else:
        rows = [
            (time_ns, file, text)
            for time_ns, look in _saved_looks(run, names, machine)
            for file, text in look.proc.items()
        ]
    texts: dict[str, dict[int, str]] = {}
    for time_ns, file, text in sorted(rows):
        texts.setdefault(file, {})[time_ns] = text
    return texts


def read_pictures(run: Path, names: list[str], machine: str) -> dict[int, MemoryPicture]:
    """Return the pictures of a machine's memory by time in ns, ascending.

    Empty if it has none. Raises ``InputError`` for a file that is damaged.
    """
    if not (run / MEMORY).is_file():
        saved = sorted(_saved_looks(run, names, machine), key=lambda row: row[0])
        return {time_ns: look.picture for time_ns, look in saved if look.picture is not None}
    rows = sorted(_read(run / MEMORY, machine), key=lambda row: int(row["time_ns"]))
    return {
        row["time_ns"]: MemoryPicture(
            row["cell_order"],
            tuple(PicturedZone(*zone) for zone in json.loads(row["zones"])),
            row["uses"],
            row["orders"],
        )
        for row in rows
    }


def _proc_rows(name: str, looks: Rows) -> list[dict[str, Any]]:
    files = sorted({file for _, look in looks for file in look.proc})
    return [
        {"time_ns": time_ns, "machine": name, "file": file, "text": look.proc[file]}
        for file in files  # texts of one file one after the other are alike, and compress to little
        for time_ns, look in looks
        if file in look.proc
    ]


def _memory_rows(name: str, looks: Rows) -> list[dict[str, Any]]:
    return [
        {
            "time_ns": time_ns,
            "machine": name,
            "cell_order": look.picture.cell_order,
            "zones": json.dumps(
                [[zone.node, zone.name, zone.start_pfn, zone.end_pfn] for zone in look.picture.zones]
            ),
            "uses": look.picture.uses,
            "orders": look.picture.orders,
        }
        for time_ns, look in looks
        if look.picture is not None
    ]


def _write(
    path: Path,
    schema: Any,  # pyarrow ships no types
    names: list[str],
    looks: list[PackedLook],
    make_rows: Callable[[str, Rows], list[dict[str, Any]]],
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    temporary = path.with_name(f".{path.name}.partial")
    # Texts and pictures as minima, maxima or entries of a dictionary would be there twice.
    plain = {"compression": "zstd", "use_dictionary": ["machine"], "write_statistics": ["time_ns", "machine"]}
    with parquet.ParquetWriter(temporary, schema, **plain) as writer:
        for member, of_member in groupby(looks, key=lambda look: look[1]):
            rows = make_rows(names[member], [(time_ns, decode_look(data)) for time_ns, _, data in of_member])
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))
    os.replace(temporary, path)


def _read(path: Path, machine: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(
            path, filters=[("machine", "==", machine)]
        ).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged: {one_line(error)}") from None
    return rows


def _saved_looks(run: Path, names: list[str], machine: str) -> Rows:
    store = CheckpointStore(run / SNAPSHOTS)
    try:
        return [
            (time_ns, decode_look(data))
            for cell in store.cells()
            for time_ns, member, data in store.looks(cell)
            if 0 <= member < len(names) and names[member] == machine
        ]
    except ValueError as error:
        raise InputError(f"{run / SNAPSHOTS}: damaged: {one_line(error)}") from None
