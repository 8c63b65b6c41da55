"""Fleets on real Ray actors that tests kill: one Ray for a module, and an executor that knows the pids."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.calls import Advance, Ready, unpack
from cluster.coordinator import Progress
from cluster.plan import Plan
from cluster.ray_config import RayConfig, load_ray_config
from cluster.ray_executor import RayExecutor
from tests.cluster.fleets import BUILDER, digest, run_plan


@contextmanager
def running_ray() -> Iterator[RayConfig]:
    """Start Ray, as the executor does, and keep it while the block runs."""
    config = load_ray_config()
    first = RayExecutor(config)
    first.start(0)
    first._joined = True  # close() is to leave Ray alone
    first.close()
    yield config
    first._ray.shutdown()


class KillingExecutor(RayExecutor):
    """Ray's executor, and the pids of its actors: one of them is killed with kill -9."""

    def __init__(self, config: RayConfig) -> None:
        super().__init__(config)
        self.pids: dict[int, int] = {}
        self.killed: list[int] = []
        self.kill_in_flight: tuple[int, int] | None = None  # server, position
        self.pause_s = 0.02  # from the start of that call to the kill

    def kill(self, server: int) -> None:
        if not self.killed:
            self.killed.append(self.pids[server])
            os.kill(self.pids[server], signal.SIGKILL)

    def submit(self, server: int, data: bytes) -> None:
        super().submit(server, data)
        order = unpack(data)
        if isinstance(order, Advance) and (server, order.position) == self.kill_in_flight:
            time.sleep(self.pause_s)
            self.kill(server)

    def wait(self) -> tuple[int, bytes | None]:
        server, data = super().wait()
        answer = None if data is None else unpack(data)
        if isinstance(answer, Ready):
            self.pids[server] = answer.pid
        return server, data


def run_on_ray(
    plan: Plan,
    folder: Path,
    executor: RayExecutor,
    on_progress: Callable[[Progress], None] = lambda _: None,
    builder: str = BUILDER,
) -> str:
    """Run a plan on Ray and return its digest."""
    try:
        return digest(plan, run_plan(plan, folder, executor, on_progress=on_progress, builder=builder))
    finally:
        executor.close()


def servers_of(driver: int) -> list[int]:
    """Return the pids of the machine servers among the driver's descendants."""
    parents, servers = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            if b"MachineServer" in command:
                servers.append(int(entry.name))

    def descends(pid: int) -> bool:
        while pid not in (0, driver):
            pid = parents.get(pid, 0)
        return pid == driver

    return sorted(pid for pid in servers if descends(pid))
