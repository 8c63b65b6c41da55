"""What the coordinator and a machine server say to each other: small records, packed as msgpack.

    Build      make these members, fresh or from snapshots      ->  Ready
    Advance    one epoch of the members, or one host phase      ->  Advanced
    Audit      check at a border that all holds (--check)       ->  Audited
    Inspect    digests, counters and snapshots, at the end      ->  Inspected

and instead of the answer, ``Failed`` (a member raised) or ``Lost`` (the server is not where the caller
thinks: it was started anew, or a call was lost on the way). Ray passes plain bytes without touching them,
so both executors use the same packing and nothing is pickled.

Every call but ``Build`` carries the *position*: how many ``Advance`` calls these members have taken part in.
A server that is somewhere else does nothing and answers ``Lost``, so no order is ever carried out twice.
"""

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Final

import msgpack


class Phase(enum.StrEnum):
    """Which half of an epoch an ``Advance`` is."""

    RUN = "run"  # guests and plain machines: one order a member, b"" for a member that rests
    HOST = "host"  # one host: one order, one reply a guest


@dataclass(frozen=True, slots=True)
class Build:
    """Make members. ``snapshots`` is empty (fresh) or has one a member, taken at ``position``."""

    builder: str  # "module:function" that makes a member of a spec
    position: int
    specs: list[dict[str, Any]]
    snapshots: list[bytes]


@dataclass(frozen=True, slots=True)
class Ready:
    """The members exist, in the process ``pid``."""

    pid: int


@dataclass(frozen=True, slots=True)
class Advance:
    """Carry out one phase of an epoch."""

    phase: str
    position: int
    orders: list[bytes]  # encoded RunUntil, or one encoded HostPhase
    sample: bool  # also return the counters, and a look at each member
    snapshot: bool  # also return a snapshot of each member


@dataclass(frozen=True, slots=True)
class Advanced:
    """One phase is done."""

    replies: list[bytes]  # encoded GuestReport a member, or encoded HostAnswer a guest
    flags: list[bool]  # a member has finished, or a guest was killed
    counters: list[dict[str, int]]
    snapshots: list[bytes]
    work_ns: int  # real time that it took, and
    snapshot_ns: int  # of it, the snapshots
    looks: list[bytes] = field(default_factory=list)  # encoded shared.look.Look; b"" for a member without


@dataclass(frozen=True, slots=True)
class Audit:
    """Check the members' invariants; changes nothing. A host also gets what its guests returned."""

    position: int
    contents: list[bytes]


@dataclass(frozen=True, slots=True)
class Audited:
    """All holds; the content of each frame of each member, as ``Member.audit`` returns it."""

    contents: list[bytes]


@dataclass(frozen=True, slots=True)
class Inspect:
    """Return what the members are, and a look at each."""

    position: int


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the members are, in order."""

    digests: list[str]
    counters: list[dict[str, int]]
    snapshots: list[bytes]
    cpu_ns: int  # CPU time of the server's process
    looks: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lost:
    """The server does not hold these members at this position."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A member raised."""

    member: str
    message: str
    detail: str  # the traceback


Request = Build | Advance | Audit | Inspect
Reply = Ready | Advanced | Audited | Inspected | Lost | Failed

_KINDS: Final = {
    kind.__name__: kind
    for kind in (Build, Ready, Advance, Advanced, Audit, Audited, Inspect, Inspected, Lost, Failed)
}


def pack(call: Request | Reply) -> bytes:
    """Return the bytes of a call or an answer."""
    values = [getattr(call, field.name) for field in fields(call)]
    packed: bytes = msgpack.packb([type(call).__name__, *values])
    return packed


def unpack(data: bytes) -> Request | Reply:
    """Return what ``pack`` was given. Raises ``ValueError`` for bytes that are no call."""
    try:
        name, *values = msgpack.unpackb(data)
        call: Request | Reply = _KINDS[name](*values)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ValueError(f"not a call: {error}") from None
    return call
