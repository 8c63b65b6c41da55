"""Where machine servers run: the interface, and the executor that needs nothing but this process.

An executor starts numbered servers and carries packed calls to them, one call in flight a server. That a
server was lost (its process died) shows as an outcome of None, at the call or at a later one; the executor
brings an empty server back with ``revive`` and knows nothing of states. ``cluster/supervision.py`` does.
"""

from collections import deque
from typing import Protocol

from cluster.machine_server import MachineServer


class Executor(Protocol):
    """Numbered machine servers, one call in flight to each."""

    def start(self, nr_servers: int) -> None:
        """Start empty servers 0..nr_servers-1. Raises ``InputError`` if they cannot be had."""

    def submit(self, server: int, data: bytes) -> None:
        """Send a packed call to a server that has none in flight."""

    def wait(self) -> tuple[int, bytes | None]:
        """Return the server and packed answer of a call that has ended; None for the answer of a lost one."""

    def call(self, server: int, data: bytes) -> bytes | None:
        """Send a packed call to a server that has none in flight, and wait for its answer alone."""

    def revive(self, server: int) -> None:
        """Bring a lost server back, empty. Raises ``RunFailed`` if it does not come in time."""

    def close(self) -> None:
        """End every server."""


class InlineExecutor:
    """All servers in this process; a call is carried out when it is waited for, oldest first."""

    def __init__(self) -> None:
        self._servers: list[MachineServer] = []
        self._pending: deque[tuple[int, bytes]] = deque()

    def start(self, nr_servers: int) -> None:
        """Make the servers."""
        self._servers = [MachineServer() for _ in range(nr_servers)]

    def submit(self, server: int, data: bytes) -> None:
        """Queue a call."""
        self._pending.append((server, data))

    def wait(self) -> tuple[int, bytes | None]:
        """Carry out the oldest call."""
        server, data = self._pending.popleft()
        return server, self._servers[server].call(data)

    def call(self, server: int, data: bytes) -> bytes | None:
        """Carry out a call at once."""
        return self._servers[server].call(data)

    def revive(self, server: int) -> None:
        """Make an empty server in the place of another."""
        self._servers[server] = MachineServer()

    def close(self) -> None:
        """Let go of the members."""
        self._servers.clear()
        self._pending.clear()
