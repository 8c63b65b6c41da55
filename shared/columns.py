"""Columns of an ``.npz`` file that somebody else wrote: types and shapes are checked before anything is unpacked.

A recorded image (shared/images.py) and a recorded trace (shared/traces.py) are such files: named arrays, and
``meta``, a JSON object in which the recording says of itself what no kernel needs to know.

    wanted   name -> (element types, axes)     "w0_page": ("uint16 uint32", "R"): one axis, as long as every R
    limits   axis -> the longest it may be     an axis that is empty is refused too

What is wrong is a ``ValueError`` of one line that names the file and the column. Nothing is ever unpickled.
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

MAX_META_CHARACTERS: Final = 1 << 16
_BYTES_PER_CHARACTER: Final = 4  # numpy keeps text as UTF-32
_NOT_WHOLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    struct.error,
)

Columns = dict[str, npt.NDArray[Any]]
Wanted = Mapping[str, tuple[str, str]]


def read_columns(
    path: Path, what: str, wanted: Wanted, limits: Mapping[str, int]
) -> tuple[Columns, dict[str, Any]]:
    """Return the columns, each of its type and shape, and the ``meta`` of a file that is ``what``: "an image".

    Raises ``ValueError``, one line: the file is missing or cut short, a column is missing, of the wrong type,
    too long or empty, or ``meta`` is no JSON object.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_headers(path, archive, wanted, limits)
            columns = {name: _column(archive, name) for name in wanted}
            meta = _column(archive, "meta")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except _NOT_WHOLE as error:
        raise ValueError(f"{path}: not a whole .npz file ({_one_line(error)})") from None
    except ValueError as error:
        said = _one_line(error)
        raise ValueError(said if said.startswith(str(path)) else f"{path}: not {what} ({said})") from None
    return columns, _read_meta(path, str(meta))


def check_range(path: Path, name: str, values: npt.NDArray[Any], limit: int) -> None:
    """Raise ``ValueError`` unless all of a column's values are in 0..limit-1."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= limit:
        raise ValueError(f"{path}: column {name} refers to {low}..{high}, outside 0..{limit - 1}")


def _read_meta(path: Path, text: str) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: column meta is not JSON ({_one_line(error)})") from None
    if not isinstance(meta, dict):
        raise ValueError(f"{path}: column meta is not a JSON object")
    return meta


def _column(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        column: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return column


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and element type that a column claims."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _check_headers(path: Path, archive: zipfile.ZipFile, wanted: Wanted, limits: Mapping[str, int]) -> None:
    """Check type and shape of every column before any of it takes memory."""
    present = set(archive.namelist())
    lengths: dict[str, int] = {}
    for name in (*wanted, "meta"):
        if f"{name}.npy" not in present:
            raise ValueError(f"{path}: column {name} is missing")
        with archive.open(f"{name}.npy") as file:
            shape, dtype = _header(file)
        if name != "meta":
            types, axes = wanted[name]
            where = f"{path}: column {name}"
            _check_type(where, types.split(), dtype)
            if len(shape) != len(axes):
                raise ValueError(f"{where} has {len(shape)} axes, not {len(axes)}")
            _check_shape(where, dict(zip(axes, shape, strict=True)), lengths, limits)
        elif shape != () or dtype.kind != "U" or dtype.itemsize > MAX_META_CHARACTERS * _BYTES_PER_CHARACTER:
            raise ValueError(f"{path}: column meta is {dtype}{list(shape)}, not one text")


def _check_type(where: str, types: list[str], found: np.dtype[Any]) -> None:
    if found not in [np.dtype(one).newbyteorder("<") for one in types]:
        raise ValueError(f"{where} is {found}, not {' or '.join(types)}")


def _check_shape(
    where: str, shape: Mapping[str, int], lengths: dict[str, int], limits: Mapping[str, int]
) -> None:
    """Check the length of each axis against its limit and against ``lengths`` of it in columns before."""
    for axis, length in shape.items():
        expected = lengths.setdefault(axis, length)
        if length != expected:
            raise ValueError(f"{where} has {length} entries where others have {expected}")
        if not 1 <= length <= limits[axis]:
            raise ValueError(f"{where}: {length} is outside 1..{limits[axis]}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
