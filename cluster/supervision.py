"""Servers that do not lose their members: snapshots, the calls since, and what to do when one dies.

For each server its record keeps the last snapshots and every ``Advance`` since, with the hash of its answer:

    Build(snapshots at 50)   Advance 50   Advance 51   Advance 52 in flight
                             hash a       hash b       X   the process dies

Restoring is the same for a guest, a host, an idle server and one with a call in flight: an empty server gets
``Build`` with the snapshots at 50, then Advance 50 and 51 again, whose answers must have the hashes a and b,
then Advance 52 as if for the first time. ``restoration`` decides that, as a function of the record alone;
``Supervisor`` carries it out. Members are deterministic, so nobody else notices.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cluster.calls import (
    Advance,
    Advanced,
    Audit,
    Audited,
    Build,
    Failed,
    Inspect,
    Inspected,
    Lost,
    Ready,
    Reply,
    Request,
    pack,
    unpack,
)
from cluster.errors import InputError, RunFailed
from cluster.executor import Executor
from cluster.plan import Spec

# A server that dies this often between two of its own checkpoints dies of what it is told to do.
MAX_RESTORATIONS: Final = 8
_HASH_BYTES: Final = 16
R = TypeVar("R", Ready, Advanced, Inspected)


@dataclass(slots=True)
class ServerRecord:
    """What it takes to make one server again."""

    builder: str
    specs: list[Spec]
    position: int = 0  # of the snapshots: Advances up to here are in them
    snapshots: list[bytes] = field(default_factory=list)  # empty: fresh members
    log: list[tuple[Advance, bytes]] = field(default_factory=list)  # since: call, hash of its answer
    in_flight: Request | None = None
    pid: int = 0  # of the process that the members are in
    restorations: int = 0  # since the last snapshots

    @property
    def next_position(self) -> int:
        """The position of the next Advance."""
        return self.position + len(self.log)


def restoration(record: ServerRecord) -> tuple[Build, list[tuple[Advance, bytes]]]:
    """Decide how to make a lost server again: the build, then calls to replay and the hashes expected."""
    build = Build(record.builder, record.position, record.specs, record.snapshots)
    replay = [
        (Advance(call.phase, call.position, call.orders, sample=False, snapshot=False), expected)
        for call, expected in record.log
    ]
    return build, replay


def note_answer(record: ServerRecord, call: Advance, answer: Advanced) -> None:
    """Log a call that was answered; an answer with snapshots makes the log before it superfluous."""
    if answer.snapshots:
        record.position = record.next_position + 1
        record.snapshots = answer.snapshots
        record.log.clear()
        record.restorations = 0
    else:
        record.log.append((call, answer_hash(answer)))


def answer_hash(answer: Advanced) -> bytes:
    """Hash what an answer tells the rest of the fleet; counters, looks and snapshots are asked for or not."""
    said = Advanced(answer.replies, answer.flags, counters=[], snapshots=[], work_ns=0, snapshot_ns=0)
    return hashlib.blake2b(pack(said), digest_size=_HASH_BYTES).digest()


class Supervisor:
    """Passes calls to an executor's servers and restores those that are lost."""

    def __init__(self, executor: Executor, on_loss: Callable[[str], None] = lambda _line: None) -> None:
        self.executor = executor
        self.records: list[ServerRecord] = []
        self.restorations = 0
        self._on_loss = on_loss

    def start(self, records: Sequence[ServerRecord]) -> None:
        """Build every server's members, all servers at once; the executor has started them.

        Raises ``InputError`` if a member cannot be built: nothing has run yet.
        """
        self.records = list(records)
        for server, record in enumerate(self.records):
            self._submit(server, restoration(record)[0])
        for _ in self.records:
            server, answer = self._wait()
            if isinstance(answer, Failed):
                raise InputError(f"{answer.member}: {answer.message}" if answer.member else answer.message)
            self.records[server].pid = _expect(answer, Ready).pid

    def advance(self, server: int, phase: str, orders: list[bytes], *, sample: bool, snapshot: bool) -> None:
        """Send the next Advance to a server that has no call in flight."""
        position = self.records[server].next_position
        self._submit(server, Advance(phase, position, orders, sample=sample, snapshot=snapshot))

    def audit(self, server: int, contents: list[bytes]) -> None:
        """Send an Audit to a server that has no call in flight."""
        self._submit(server, Audit(self.records[server].next_position, contents))

    def wait(self) -> tuple[int, Advanced | Audited]:
        """Return the next answer to an Advance or Audit, from any server.

        Raises ``RunFailed`` if a member failed.
        """
        server, reply = self._wait()
        return server, reply if isinstance(reply, Audited) else _expect(reply, Advanced)

    def inspect(self) -> list[Inspected]:
        """Return the state of all servers, which must have no calls in flight."""
        for server, record in enumerate(self.records):
            self._submit(server, Inspect(record.next_position))
        found: dict[int, Inspected] = {}
        while len(found) < len(self.records):
            server, reply = self._wait()
            found[server] = _expect(reply, Inspected)
        return [found[server] for server in range(len(self.records))]

    def _submit(self, server: int, call: Request) -> None:
        self.records[server].in_flight = call
        self.executor.submit(server, pack(call))

    def _wait(self) -> tuple[int, Reply]:
        while True:
            server, data = self.executor.wait()
            record = self.records[server]
            call = record.in_flight
            assert call is not None, f"server {server} answered without being asked"
            reply = None if data is None else _unpack_reply(data)
            if reply is None or isinstance(reply, Lost):
                self._restore(server)
                self.executor.submit(server, pack(call))
                continue
            record.in_flight = None
            if isinstance(call, Advance) and isinstance(reply, Advanced):
                note_answer(record, call, reply)
            return server, reply

    def _restore(self, server: int) -> None:
        """Bring a lost server back to where it was before the call in flight."""
        record = self.records[server]
        build, replay = restoration(record)
        names = ", ".join(spec["id"] for spec in record.specs)
        while True:
            self.restorations += 1
            record.restorations += 1
            if record.restorations > MAX_RESTORATIONS:
                raise RunFailed(f"{names}: lost {record.restorations} times since the last snapshot")
            calls = f"{len(replay)} calls since"
            self._on_loss(f"{names}: lost (process {record.pid}), restoring from the snapshot and {calls}")
            self.executor.revive(server)
            if isinstance(record.in_flight, Build) or self._replay(server, build, replay, names):
                return

    def _replay(self, server: int, build: Build, replay: list[tuple[Advance, bytes]], names: str) -> bool:
        """Carry out a restoration; return False if the server was lost again meanwhile."""
        calls: list[tuple[Request, bytes]] = [(build, b""), *replay]
        for call, expected in calls:
            data = self.executor.call(server, pack(call))
            reply = None if data is None else _unpack_reply(data)
            if reply is None or isinstance(reply, Lost):
                return False
            if isinstance(call, Build):
                self.records[server].pid = _expect(reply, Ready).pid
            elif answer_hash(_expect(reply, Advanced)) != expected:
                raise RunFailed(
                    f"{names}: the replay of call {call.position} gave another answer than before"
                )
        return True


def _unpack_reply(data: bytes) -> Reply:
    reply = unpack(data)
    assert not isinstance(reply, Build | Advance | Audit | Inspect), "a server answered with an order"
    return reply


def _expect(reply: Reply, kind: type[R]) -> R:
    if isinstance(reply, Failed):
        raise RunFailed(f"{reply.member}: {reply.message}" if reply.member else reply.message, reply.detail)
    assert isinstance(reply, kind), f"{type(reply).__name__} came where {kind.__name__} was due"
    return reply
