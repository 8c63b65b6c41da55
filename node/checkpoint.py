"""Checkpoints: all of a machine's state as bytes that check themselves, and back.

    | magic 4 | version 4 | hash 16 | header length 4 | header | zstd level 1 of: table, table, ... |

Only the used part of each table is kept: node/used_parts.py says which that is.

The hash covers everything behind itself. Lengths are compared with the header, and with each other, before
anything is reserved, so a damaged or foreign file costs no memory. Nothing is ever unpickled.
"""

import os
import struct
from typing import Any, Final

import msgpack
import numpy as np
import xxhash
import zstandard

from node.state import State
from node.used_parts import Table, used_parts

MAGIC: Final = b"PFCK"
VERSION: Final = 1
_LEVEL: Final = 1
_START: Final = struct.Struct("<4sI16sI")  # magic, version, hash, length of the header
_MAX_HEADER_BYTES: Final = 1 << 20
_MAX_TABLE_BYTES: Final = 1 << 40  # reserved, not committed
_NOT_DIGESTED: Final = frozenset({"panic"})


class CheckpointError(ValueError):
    """Bytes that are no checkpoint of this program's machines, in one line."""


def _nr_used(state: State, name: str) -> int:
    return sum(len(part) for part in used_parts(state, name))


def _bytes_of(part: Table) -> memoryview:
    return part.view(np.uint8).data


# --- digest ---------------------------------------------------------------------------------------------


def digest(state: State) -> str:
    """Return the hash of the used parts of all tables, as hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    for name in state.LAYOUT:
        if name in _NOT_DIGESTED:
            continue
        hasher.update(f"{name} {_kind(state, name)} {_nr_used(state, name)};".encode())
        for part in used_parts(state, name):
            hasher.update(_bytes_of(part))
    return str(hasher.hexdigest())


def _kind(state: State, name: str) -> str:
    """Return a table's element type with the place of every field."""
    return str(state.LAYOUT[name].dtype.descr)


# --- taking ---------------------------------------------------------------------------------------------


def snapshot(state: State, header: dict[str, Any]) -> bytes:
    """Return the checkpoint of a machine; ``header`` is what ``restore`` gives back beside the state."""
    tables = [(name, _kind(state, name), len(table), _nr_used(state, name)) for name, table in state.tables()]
    described = msgpack.packb({"tables": tables, "user": header})
    nr_bytes = sum(used * state.LAYOUT[name].dtype.itemsize for name, _, _, used in tables)
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=nr_bytes)
    pieces = [described]
    pieces += [
        compressor.compress(_bytes_of(part)) for name in state.LAYOUT for part in used_parts(state, name)
    ]
    pieces.append(compressor.flush())
    start = _START.pack(MAGIC, VERSION, _hash(len(described), pieces), len(described))
    return b"".join([start, *pieces])


def _hash(header_bytes: int, pieces: list[Any]) -> bytes:
    hasher = xxhash.xxh3_128(header_bytes.to_bytes(4, "little"))
    for piece in pieces:
        hasher.update(piece)
    return bytes(hasher.digest())


# --- restoring ------------------------------------------------------------------------------------------


def restore(data: bytes) -> tuple[State, dict[str, Any]]:
    """Return the machine's state, and the header, of a checkpoint.

    Raises ``CheckpointError``, in one line, for bytes that are damaged, cut off, or of another layout.
    """
    described, body = _open(data)
    try:
        header = msgpack.unpackb(described)
        tables = [
            (str(name), str(kind), int(length), int(used)) for name, kind, length, used in header["tables"]
        ]
        user = dict(header["user"])
    except (msgpack.UnpackException, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"checkpoint: its header cannot be read ({_one_line(error)})") from None
    _check_tables(tables, body)
    state = State(**{name: length for name, _, length, _ in tables})
    with zstandard.ZstdDecompressor().stream_reader(body) as reader:
        for name, _, _, used in tables:
            _read_table(reader, state, name, used)
    return state, user


def _open(data: bytes) -> tuple[bytes, memoryview]:
    """Return header and compressed tables, after the hash has been found right."""
    if len(data) < _START.size:
        raise CheckpointError(f"checkpoint: {len(data)} bytes are too few: it was cut off")
    magic, version, wanted, header_bytes = _START.unpack_from(data)
    if magic != MAGIC:
        raise CheckpointError(f"checkpoint: starts with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise CheckpointError(
            f"checkpoint: format {version} is not {VERSION}, the one that this program reads"
        )
    rest = memoryview(data)[_START.size :]
    if _hash(header_bytes, [rest]) != wanted:
        raise CheckpointError("checkpoint: damaged: its hash does not match")
    if header_bytes > min(len(rest), _MAX_HEADER_BYTES):
        raise CheckpointError(f"checkpoint: a header of {header_bytes} bytes does not fit")
    return bytes(rest[:header_bytes]), rest[header_bytes:]


def _check_tables(tables: list[tuple[str, str, int, int]], body: memoryview) -> None:
    """Compare what the header says with this program's tables, and with the size of what is compressed."""
    names = [name for name, *_ in tables]
    if names != list(State.LAYOUT):
        other = sorted(set(names) ^ set(State.LAYOUT)) or ["in another order"]
        raise CheckpointError(f"checkpoint: is of another version of the machine (tables {', '.join(other)})")
    nr_bytes = 0
    for name, kind, length, used in tables:
        dtype = State.LAYOUT[name].dtype
        if kind != str(dtype.descr):
            raise CheckpointError(
                f"checkpoint: is of another version of the machine (records of table {name})"
            )
        if not 0 <= used <= length or length * dtype.itemsize > _MAX_TABLE_BYTES:
            raise CheckpointError(f"checkpoint: table {name} has {used} of {length} records in use")
        nr_bytes += used * dtype.itemsize
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if nr_bytes > memory_bytes:
        raise CheckpointError(
            f"checkpoint: its {nr_bytes} bytes are more than the {memory_bytes} of this computer"
        )
    try:
        content_bytes = zstandard.get_frame_parameters(body).content_size
    except zstandard.ZstdError as error:
        raise CheckpointError(f"checkpoint: its tables cannot be read ({_one_line(error)})") from None
    if content_bytes != nr_bytes:
        raise CheckpointError(f"checkpoint: holds {content_bytes} bytes of tables, not {nr_bytes} as it says")


def _read_table(reader: zstandard.ZstdDecompressionReader, state: State, name: str, used: int) -> None:
    """Fill in the used part of a table; those before it are restored already."""
    try:
        parts = list(used_parts(state, name))
        found = sum(len(part) for part in parts)
        if found != used:
            raise CheckpointError(
                f"checkpoint: table {name} has {used} records in use, but other tables say {found}"
            )
        for part in parts:
            space = _bytes_of(part)
            done = 0
            while done < len(space):
                count = reader.readinto(space[done:])
                if count == 0:
                    raise CheckpointError(f"checkpoint: ends within table {name}")
                done += count
    except zstandard.ZstdError as error:
        raise CheckpointError(f"checkpoint: table {name} cannot be read ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
