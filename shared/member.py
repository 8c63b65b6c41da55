"""``Member``: what the coordinator knows of a simulated thing.

A member has its own state and is a guest (a full machine or a replayed image), a host, or a plain
machine. ``node.machine.build_member`` makes one from a plain spec; where it lives (in this process, in
a Ray actor, beside others) makes no difference to what it computes.

One epoch of a host and its guests:

    guests  run_epoch(RunUntil)  -> GuestReport ...     in parallel
    host    host_phase(HostPhase with all reports) -> HostAnswer ...
    the answers go with the guests' next RunUntil
"""

from collections.abc import Sequence
from typing import Protocol

from shared.messages import HostPhase, RunUntil


class Member(Protocol):
    """One simulated thing with its own state."""

    @property
    def kind(self) -> str:
        """Return "machine", "guest", "image" or "host"."""

    def run_epoch(self, order: RunUntil) -> bytes:
        """Simulate the span of ``order``; return an encoded ``GuestReport``. Not for a host."""

    def host_phase(self, order: HostPhase) -> list[bytes]:
        """Serve the guests' reports; return an encoded ``HostAnswer`` for each guest. For a host only."""

    def counters(self) -> dict[str, int]:
        """Return events and levels by Linux's names, cumulative since the start."""

    def look(self) -> bytes:
        """Return what ``shared.look.encode_look`` makes of the files of /proc and a picture of the memory.

        b"" for a member that has neither.
        """

    def audit(self, contents: Sequence[bytes]) -> bytes:
        """Check at a border all that must hold of the state; return each frame's content id (i8), by gfn.

        ``contents`` is empty but for a host, which compares them with its own: what each of its guests
        returned, b"" for a killed one. Who is no guest returns b"". Raises ``AssertionError`` in one line.
        """

    def snapshot(self) -> bytes:
        """Return the complete state: magic, version and hash inside, compressed, never a pickle."""

    def restore(self, data: bytes) -> None:
        """Take over the state of ``snapshot``. Raises ``ValueError`` if ``data`` is anything else."""

    def digest(self) -> str:
        """Return the hash of the state, as hexadecimal digits."""
