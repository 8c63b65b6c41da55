"""A machine server holds members by their ids and carries out orders for them. It decides nothing.

It is a plain class: in process it is called directly, on Ray the executor makes it an actor. The members come
from a builder named by the call, so this file, like all of ``cluster``, imports neither numba nor Ray.
"""

import importlib
import os
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from cluster.allocations import with_allocations
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
    Phase,
    Ready,
    Reply,
    pack,
    unpack,
)
from cluster.errors import one_line
from shared.member import Member
from shared.messages import GuestReport, HostAnswer, HostPhase, RunUntil, decode_as, read_flag

NODE_BUILDER: Final = "node.machine:build_member"
_NOT_BUILT: Final = -1


class MachineServer:
    """Members of one cell, all at the same position."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.position = _NOT_BUILT
        self._at_work = ""  # the member that a failure is blamed on

    def call(self, data: bytes) -> bytes:
        """Carry out one packed call and return the packed answer. A member's exception becomes ``Failed``."""
        try:
            return pack(self._carry_out(data))
        except Exception as error:  # whatever a member raises ends the run, not the server
            return pack(Failed(self._at_work, one_line(error), traceback.format_exc()))

    def _carry_out(self, data: bytes) -> Reply:
        self._at_work = ""
        call = unpack(data)
        if isinstance(call, Build):
            return self.build(call)
        if not isinstance(call, Advance | Audit | Inspect):
            raise TypeError(f"{type(call).__name__} is not an order")
        if call.position != self.position:
            return Lost()
        if isinstance(call, Inspect):
            return self.inspect()
        if isinstance(call, Audit):
            return self.audit(call)
        return self.host_phase(call) if call.phase == Phase.HOST else self.run_epoch(call)

    def build(self, order: Build) -> Ready:
        """Make the members of ``order.specs``, from their snapshots if there are any."""
        self.position = _NOT_BUILT
        self.members = {}
        build_member = _builder(order.builder)
        for index, spec in enumerate(order.specs):
            self._at_work = spec["id"]
            member = build_member(with_allocations(spec))
            if order.snapshots:
                member.restore(order.snapshots[index])
            self.members[spec["id"]] = member
        self.position = order.position
        return Ready(os.getpid())

    def run_epoch(self, order: Advance) -> Advanced:
        """Run each member's epoch, in order; a member whose order is empty rests and replies b""."""
        begun_ns = time.monotonic_ns()
        replies, finished = [], []
        for data, (name, member) in zip(order.orders, self.members.items(), strict=True):
            self._at_work = name
            if not data:
                replies.append(b"")
                finished.append(True)
                continue
            reply = member.run_epoch(decode_as(RunUntil, data))
            replies.append(reply)
            finished.append(read_flag(GuestReport, reply, "finished"))
        return self._advanced(order, replies, finished, begun_ns)

    def host_phase(self, order: Advance) -> Advanced:
        """Run the phase of the one host held here."""
        begun_ns = time.monotonic_ns()
        [(name, host)] = self.members.items()
        [data] = order.orders
        self._at_work = name
        answers = host.host_phase(decode_as(HostPhase, data))
        killed = [read_flag(HostAnswer, answer, "killed") for answer in answers]
        return self._advanced(order, answers, killed, begun_ns)

    def audit(self, order: Audit) -> Audited:
        """Check each member."""
        contents = []
        for name, member in self.members.items():
            self._at_work = name
            contents.append(member.audit(order.contents))
        return Audited(contents)

    def inspect(self) -> Inspected:
        """Return digest, counters, snapshot and look of each member."""
        return Inspected(
            digests=[member.digest() for member in self.members.values()],
            counters=self.counters(),
            snapshots=self.snapshots(),
            cpu_ns=time.process_time_ns(),
            looks=self.looks(),
        )

    def counters(self) -> list[dict[str, int]]:
        """Return each member's counters, cumulative since its start."""
        return [member.counters() for member in self.members.values()]

    def looks(self) -> list[bytes]:
        """Return a look at each member, b"" for one that has nothing to show."""
        return [member.look() for member in self.members.values()]

    def snapshots(self) -> list[bytes]:
        """Return a snapshot of each member."""
        return [member.snapshot() for member in self.members.values()]

    def _advanced(self, order: Advance, replies: list[bytes], flags: list[bool], begun_ns: int) -> Advanced:
        self.position += 1
        counters = self.counters() if order.sample else []
        looks = self.looks() if order.sample else []
        run_ns = time.monotonic_ns()
        snapshots = self.snapshots() if order.snapshot else []
        done_ns = time.monotonic_ns()
        return Advanced(replies, flags, counters, snapshots, done_ns - begun_ns, done_ns - run_ns, looks)


def _builder(dotted: str) -> Callable[[dict[str, Any]], Member]:
    module, _, function = dotted.partition(":")
    found: Callable[[dict[str, Any]], Member] = getattr(importlib.import_module(module), function)
    return found
