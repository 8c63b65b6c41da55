"""Messages between the coordinator and the members of a fleet: their fields, and their bytes.

A message is an order (``RunUntil``, ``HostPhase``) or a report (``GuestReport``, ``HostAnswer``). As
bytes it is a small msgpack header and, after it, the raw buffers of its arrays and nested
messages, so nothing is built per item, and decoding copies no array:

    | magic 4 | header length 4 | header: [tag, field, field, ...] | pad | buffer | pad | buffer ...
                                           |
                        an int, a bool or a map as itself; of bytes their length, of several
                        bytes their lengths, of an array its element type and length

Buffers start at multiples of 8. A message has one encoding: equal messages are equal bytes, on
any machine, so a run can be replayed and compared byte for byte.

``decode`` trusts nothing: whatever the bytes, it returns a valid message or raises
``MessageError`` with one line. Nothing is ever unpickled.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Annotated, Any, Final, TypeVar, cast, get_origin, get_type_hints

import msgpack
import numpy as np
import numpy.typing as npt

from shared.constants import INT64_MAX, INT64_MIN
from shared.views import View

MAGIC: Final = b"PFM1"
_PREFIX: Final = struct.Struct("<4sI")
_ALIGNMENT: Final = 8  # bytes; numpy and compiled code want whole words

_I1: Final = np.dtype("<i1")
_I2: Final = np.dtype("<i2")
_I4: Final = np.dtype("<i4")
_I8: Final = np.dtype("<i8")
I1Array = Annotated[npt.NDArray[np.int8], _I1]
I2Array = Annotated[npt.NDArray[np.int16], _I2]
I4Array = Annotated[npt.NDArray[np.int32], _I4]
I8Array = Annotated[npt.NDArray[np.int64], _I8]


class MessageError(ValueError):
    """A message is not what it should be; the text says what is wrong, in one line."""


class ViolationKind(IntEnum):
    """The access that was not allowed by the EPT view."""

    READ = 0
    WRITE = 1


@dataclass(frozen=True, slots=True)
class RunUntil:
    """Order to a guest or plain machine: simulate ``start_ns`` <= t < ``end_ns``."""

    epoch: int
    start_ns: int
    end_ns: int
    answer: bytes = b""  # the host's HostAnswer to the epoch before, encoded; empty in the first

    def __post_init__(self) -> None:
        """Check the fields."""
        _check_fields(self)
        _check_span(self.epoch, self.start_ns, self.end_ns)


@dataclass(frozen=True, slots=True, eq=False)
class GuestReport:
    """What a guest did in an epoch. Plain machines leave the arrays empty."""

    epoch: int
    guest: int  # its number on its host, from 0
    counters: dict[str, int]  # by Linux's names, cumulative since the start
    # EPT violations, in order of time; the four arrays have one length.
    violation_time_ps: I8Array = field(default_factory=lambda: np.empty(0, np.int64))
    violation_gfn: I4Array = field(default_factory=lambda: np.empty(0, np.int32))
    violation_vcpu: I2Array = field(default_factory=lambda: np.empty(0, np.int16))
    violation_kind: I1Array = field(default_factory=lambda: np.empty(0, np.int8))  # ViolationKind
    # Pages whose content changed: the content at the end of the epoch. One length.
    changed_gfn: I4Array = field(default_factory=lambda: np.empty(0, np.int32))
    changed_content: I8Array = field(default_factory=lambda: np.empty(0, np.int64))
    changed_word: I4Array = field(default_factory=lambda: np.empty(0, np.int32))
    # Pages walked since the host last cleared them.
    accessed_gfn: I4Array = field(default_factory=lambda: np.empty(0, np.int32))
    finished: bool = False  # its workload is over

    def __post_init__(self) -> None:
        """Check the fields."""
        _check_fields(self)
        _check_not_negative("epoch", self.epoch)
        _check_not_negative("guest", self.guest)
        _check_one_length(self, "violation_time_ps", "violation_gfn", "violation_vcpu", "violation_kind")
        _check_one_length(self, "changed_gfn", "changed_content", "changed_word")
        _check_members("violation_kind", self.violation_kind, ViolationKind)


@dataclass(frozen=True, slots=True)
class HostPhase:
    """Order to a host: serve what its guests did in ``start_ns`` <= t < ``end_ns``."""

    epoch: int
    start_ns: int
    end_ns: int
    reports: tuple[bytes, ...]  # the guests' GuestReports, encoded, in the order of the guests

    def __post_init__(self) -> None:
        """Check the fields."""
        _check_fields(self)
        _check_span(self.epoch, self.start_ns, self.end_ns)


@dataclass(frozen=True, slots=True, eq=False)
class HostAnswer:
    """What a host did about one guest's epoch; goes to the guest with its next order."""

    epoch: int
    guest: int
    # New view of each listed frame; both arrays have one length.
    view_gfn: I4Array = field(default_factory=lambda: np.empty(0, np.int32))
    view_level: I1Array = field(default_factory=lambda: np.empty(0, np.int8))  # View
    estimate_ns: int = 0  # what an access to a swapped gfn is charged for the device in the next epoch
    # [vCPU] true latency less the estimate charged; may be negative.
    stall_ps: I8Array = field(default_factory=lambda: np.empty(0, np.int64))
    killed: bool = False  # the host ran out of memory and chose this guest

    def __post_init__(self) -> None:
        """Check the fields."""
        _check_fields(self)
        _check_not_negative("epoch", self.epoch)
        _check_not_negative("guest", self.guest)
        _check_not_negative("estimate_ns", self.estimate_ns)
        _check_one_length(self, "view_gfn", "view_level")
        _check_members("view_level", self.view_level, View)


Message = RunUntil | GuestReport | HostPhase | HostAnswer
M = TypeVar("M", RunUntil, GuestReport, HostPhase, HostAnswer)

# The tags are part of the format: add, never renumber.
_TYPE_OF_TAG: Final[dict[int, type[Message]]] = {1: RunUntil, 2: GuestReport, 3: HostPhase, 4: HostAnswer}
_TAG_OF_TYPE: Final = {kind: tag for tag, kind in _TYPE_OF_TAG.items()}


def encode(message: Message) -> bytes:
    """Return the bytes of ``message``; equal messages give equal bytes."""
    header: list[Any] = [_TAG_OF_TYPE[type(message)]]
    buffers: list[bytes | memoryview] = []
    for name, kind in _FIELDS[type(message)].items():
        value = getattr(message, name)
        if isinstance(kind, np.dtype):
            array = np.ascontiguousarray(value)
            header.append([kind.str, len(array)])
            buffers.append(array.data.cast("B") if len(array) else b"")
        elif kind is bytes:
            header.append(len(value))
            buffers.append(value)
        elif kind is tuple:
            header.append([len(part) for part in value])
            buffers.extend(value)
        elif kind is dict:
            header.append(dict(sorted(value.items())))
        else:
            header.append(value)
    packed = msgpack.packb(header)
    pieces: list[bytes | memoryview] = [_PREFIX.pack(MAGIC, len(packed)), packed]
    end = _PREFIX.size + len(packed)
    for buffer in buffers:
        pieces += [bytes(-end % _ALIGNMENT), buffer]
        end += -end % _ALIGNMENT + len(buffer)
    return b"".join(pieces)


def decode(data: bytes) -> Message:
    """Return the message that ``data`` encodes. Its arrays are read-only views of ``data``.

    Raises ``MessageError`` if ``data`` is anything else than what ``encode`` returns.
    """
    header, end = _decode_header(data)
    kind = _TYPE_OF_TAG.get(header[0]) if type(header[0]) is int else None
    if kind is None:
        raise MessageError(
            f"message tag: {_short(header[0])} is not one of {', '.join(map(str, _TYPE_OF_TAG))}"
        )
    fields = _PLACES[kind]
    if len(header) != 1 + len(fields):
        raise MessageError(f"{kind.__name__}: {len(header) - 1} fields, but it has {len(fields)}")
    reader = _Reader(data, end)
    values = {
        name: _decode_field(where, of, said, reader)
        for (name, where, of), said in zip(fields, header[1:], strict=True)
    }
    if reader.position != len(data):
        raise MessageError(f"{kind.__name__}: {len(data) - reader.position} bytes too many")
    return kind(**values)


def decode_as(kind: type[M], data: bytes) -> M:
    """Return the message that ``data`` encodes, which must be of type ``kind``; else ``MessageError``."""
    message = decode(data)
    if not isinstance(message, kind):
        raise MessageError(f"message: a {type(message).__name__} where a {kind.__name__} is needed")
    return message


def read_flag(kind: type[M], data: bytes, name: str) -> bool:
    """Return the flag ``name`` of an encoded message of type ``kind``, whose arrays are left alone.

    Raises ``MessageError`` if the header of ``data`` is not that of such a message.
    """
    header, _ = _decode_header(data)
    fields = list(_FIELDS[kind])
    if header[0] != _TAG_OF_TYPE[kind] or len(header) != 1 + len(fields):
        raise MessageError(f"message: not a {kind.__name__}: its header is {_short(header)}")
    flag = header[1 + fields.index(name)]
    _check_type(f"{kind.__name__}.{name}", flag, bool)
    return bool(flag)


class _Reader:
    """Cuts the buffers after a header off one after the other."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position

    def take(self, where: str, nr_bytes: Any) -> int:
        """Step over the next ``nr_bytes`` bytes and return where they begin."""
        if type(nr_bytes) is not int or nr_bytes < 0:
            raise MessageError(f"{where}: {_short(nr_bytes)} is not a length")
        start = self.position + -self.position % _ALIGNMENT
        if start + nr_bytes > len(self.data):
            left = max(0, len(self.data) - start)
            raise MessageError(f"{where}: {nr_bytes} bytes announced, {left} left: the message is cut short")
        if start != self.position and any(self.data[self.position : start]):
            raise MessageError(f"{where}: the padding before it is not zero")
        self.position = start + nr_bytes
        return start

    def take_bytes(self, where: str, nr_bytes: Any) -> bytes:
        """Return the next ``nr_bytes`` bytes."""
        start = self.take(where, nr_bytes)
        return self.data[start : start + nr_bytes]


def _decode_header(data: bytes) -> tuple[list[Any], int]:
    """Return the header of ``data`` and where it ends."""
    if len(data) < _PREFIX.size:
        raise MessageError(f"message: {len(data)} bytes is below the minimum of {_PREFIX.size}")
    magic, header_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise MessageError(f"message: starts with {magic!r}, not {MAGIC!r}")
    end = _PREFIX.size + header_bytes
    if end > len(data):
        raise MessageError(f"message: cut short: a header of {header_bytes} bytes in {len(data)} bytes")
    packed = data[_PREFIX.size : end]
    try:
        header = msgpack.unpackb(packed)
        canonical = isinstance(header, list) and msgpack.packb(header) == packed
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise MessageError(f"message header: not msgpack: {_short(error)}") from None
    if not canonical or not header:
        raise MessageError("message header: not a list as encode writes it")
    return header, end


def _decode_field(where: str, kind: Any, said: Any, reader: _Reader) -> Any:
    """Return a field's value from what the header said of it and the buffers."""
    if isinstance(kind, np.dtype):
        if type(said) is not list or len(said) != len(("dtype", "length")) or said[0] != kind.str:
            raise MessageError(f"{where}: {_short(said)} is not [{kind.str!r}, length]")
        count = said[1]
        start = reader.take(where, count * kind.itemsize if type(count) is int else count)
        return np.frombuffer(reader.data, kind, count, start)
    if kind is bytes:
        return reader.take_bytes(where, said)
    if kind is tuple:
        if type(said) is not list:
            raise MessageError(f"{where}: {_short(said)} is not a list of lengths")
        return tuple(reader.take_bytes(where, nr_bytes) for nr_bytes in said)
    if kind is dict and type(said) is dict and list(said) != sorted(said, key=str):
        raise MessageError(f"{where}: its names are not in order")
    return said  # an int, a bool or a map: checked as every message's fields are


def _check_fields(message: Message) -> None:
    """Check the type of every field, and that integers fit in 64 bits."""
    for name, where, check in _CHECKS[type(message)]:
        check(where, getattr(message, name))


def _check_of(kind: Any) -> Callable[[str, Any], None]:
    """Return the function that checks a field of this kind, given where the field is and its value."""
    if isinstance(kind, np.dtype):
        return partial(_check_array, dtype=kind)
    return {int: _check_int, dict: _check_map, tuple: _check_parts}.get(kind, partial(_check_type, kind=kind))


def _check_array(where: str, value: Any, dtype: np.dtype[Any]) -> None:
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        raise MessageError(f"{where}: {_short(value)} is not a one-dimensional array")
    if value.dtype != dtype:
        raise MessageError(f"{where}: elements are {value.dtype.str}, not {dtype.str}")


def _check_type(where: str, value: Any, kind: type) -> None:
    if type(value) is not kind:
        wanted = f"{'an' if kind is int else 'a'} {kind.__name__}"
        raise MessageError(f"{where}: {_short(value)} is a {type(value).__name__}, not {wanted}")


def _check_map(where: str, value: Any) -> None:
    _check_type(where, value, dict)
    for key, number in value.items():
        if type(key) is not str:
            raise MessageError(f"{where}: {_short(key)} is not a name")
        if type(number) is not int or not INT64_MIN <= number <= INT64_MAX:
            _check_int(f"{where}[{_short(key)}]", number)


def _check_parts(where: str, value: Any) -> None:
    _check_type(where, value, tuple)
    if not all(type(part) is bytes for part in value):
        raise MessageError(f"{where}: not all of it is bytes")


def _check_int(where: str, value: Any) -> None:
    _check_type(where, value, int)
    if not INT64_MIN <= value <= INT64_MAX:
        raise MessageError(f"{where}: {value} does not fit in 64 bits")


def _check_not_negative(where: str, value: int) -> None:
    if value < 0:
        raise MessageError(f"{where}: {value} is below 0")


def _check_span(epoch: int, start_ns: int, end_ns: int) -> None:
    _check_not_negative("epoch", epoch)
    _check_not_negative("start_ns", start_ns)
    if end_ns < start_ns:
        raise MessageError(f"end_ns: {end_ns} is before start_ns, {start_ns}")


def _check_one_length(message: Message, *names: str) -> None:
    lengths = {name: len(getattr(message, name)) for name in names}
    if len(set(lengths.values())) != 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise MessageError(f"{type(message).__name__}: lengths differ: {said}")


def _check_members(where: str, values: npt.NDArray[Any], of: type[IntEnum]) -> None:
    if len(values) and not (min(of) <= values.min() and values.max() <= max(of)):
        raise MessageError(
            f"{where}: values {values.min()}..{values.max()} are outside {int(min(of))}..{int(max(of))}"
        )


def _short(value: object) -> str:
    """Show a value in an error: one line, not long."""
    limit = 60
    text = repr(value).replace("\n", " ")
    return text if len(text) <= limit else text[:limit] + "..."


def _fields_of(kind: type[Message]) -> Iterator[tuple[str, Any]]:
    """Yield each field's name and kind: an array's dtype, else the plain type (dict, tuple, bytes, ...)."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is Annotated:
            yield name, cast("Any", hint).__metadata__[0]
        else:
            yield name, get_origin(hint) or hint


_FIELDS: Final[dict[type[Message], dict[str, Any]]] = {
    kind: dict(_fields_of(kind)) for kind in _TYPE_OF_TAG.values()
}
# Field, where it is in an error's words, and its kind or what checks it: made once, since a fleet sends
# thousands of messages a second.
_PLACES: Final = {
    kind: [(name, f"{kind.__name__}.{name}", of) for name, of in fields.items()]
    for kind, fields in _FIELDS.items()
}
_CHECKS: Final = {
    kind: [(name, where, _check_of(of)) for name, where, of in places] for kind, places in _PLACES.items()
}
