"""An executor in this process that loses servers when it is told to: Ray's failures, without Ray."""

from collections.abc import Callable

from cluster.calls import Advance, unpack
from cluster.executor import InlineExecutor
from cluster.machine_server import MachineServer

# (server, position, attempt) -> "before": lost before the call; "after": carried out, the answer lost;
# "silent": the server's process was replaced by an empty one; "": nothing happens.
Fate = Callable[[int, int, int], str]


class LosingExecutor(InlineExecutor):
    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate
        self.losses: list[tuple[int, int, str]] = []
        self._attempts: dict[tuple[int, int], int] = {}

    def wait(self) -> tuple[int, bytes | None]:
        server, data = self._pending.popleft()
        return server, self.call(server, data)

    def call(self, server: int, data: bytes) -> bytes | None:
        order = unpack(data)
        if not isinstance(order, Advance):
            return super().call(server, data)
        key = (server, order.position)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        fate = self.fate(server, order.position, self._attempts[key])
        if not fate:
            return super().call(server, data)
        self.losses.append((*key, fate))
        if fate == "after":
            super().call(server, data)
        self._servers[server] = MachineServer()
        return super().call(server, data) if fate == "silent" else None
