"""What a fleet costs besides its kernels: epochs on Ray, whole commands, memory of members, checkpoints.

    epoch overhead     (wall - kernel CPU / cores) / wall, of 16 machines that compute, one an actor
    an idle epoch      wall of one epoch of 16 recorded guests at rest, packed into one actor
    whole commands     from Enter to the prompt, kernels warm; the largest sum of PSS over their processes
    memory             USS of a process with one member, against its budget
    checkpoints        the part of a run that they take

Each figure comes from processes of their own, which run this module and answer with one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from benchmarks.program import MAX_BYTES_PER_FRAME, MAX_MACHINE_BYTES, ROOT, Figure, uss_bytes
from cluster.checkpoints import CheckpointStore
from cluster.coordinator import Coordinator, FleetResult, Progress
from cluster.executor import Executor, InlineExecutor
from cluster.machine_server import NODE_BUILDER
from cluster.plan import Plan, make_plan
from cluster.scenario_file import load_scenario
from cluster.supervision import Supervisor
from shared.constants import GIB, KIB, MIB, NS_PER_MS, NS_PER_S, PAGE_SIZE

CONSOLIDATION: Final = ROOT / "scenarios" / "consolidation.yaml"
SMOKE: Final = ROOT / "scenarios" / "smoke.yaml"
MAX_OVERHEAD_PERCENT: Final = 15
MAX_IDLE_EPOCH_MS: Final = 5
MAX_CONSOLIDATION_S: Final = 30
MAX_CONSOLIDATION_BYTES: Final = 3 * GIB
MAX_SMOKE_S: Final = 3
MAX_CHECKPOINT_PERCENT: Final = 5
MAX_BYTES_PER_MERGEABLE_PAGE: Final = 64
PERCENT: Final = 100
NR_MEMBERS: Final = 16
BUSY_EPOCHS: Final = 20
BUSY_EPOCH_MS: Final = 10  # simulated; keeps a CPU busy for 50 ms and more
SMOKE_RUNS: Final = 3
PSS_PERIOD_S: Final = 1.0
SETTLED_NS: Final = 10 * NS_PER_S  # idle guests have touched their memory by then
KERNEL_CPU: Final = "kernel_cpu_ns"
GUEST_BYTES: Final = GIB
GUEST_EPOCHS: Final = 50
MS_PER_S: Final = 1000
TIMED_BUILDER: Final = "benchmarks.epochs:build_timed_machine"


def epoch_figures() -> list[Figure]:
    """Return all figures of this module."""
    busy, idle, guest, share = (_measure(what) for what in ("busy", "idle", "guest", "checkpoints"))
    with tempfile.TemporaryDirectory(prefix="pagefleet-bench-") as folder:
        smoke = median(
            run_command(SMOKE, Path(folder) / f"smoke-{run}", "inline")["seconds"]
            for run in range(SMOKE_RUNS)
        )
        study = run_command(CONSOLIDATION, Path(folder) / "study", "ray")
    busy_name = f"overhead of {NR_MEMBERS} actors, {busy['kernel_ms']:.0f} ms CPU an epoch"
    idle_name = f"an epoch of {NR_MEMBERS} idle recorded guests"
    return [
        Figure(busy_name, busy["overhead_percent"], MAX_OVERHEAD_PERCENT, "% of wall"),
        Figure(idle_name, idle["epoch_ms"], MAX_IDLE_EPOCH_MS, "ms"),
        Figure("smoke.yaml, inline", smoke, MAX_SMOKE_S, "s"),
        Figure("consolidation.yaml, Ray", study["seconds"], MAX_CONSOLIDATION_S, "s"),
        Figure("its processes' memory", study["pss"] / MIB, MAX_CONSOLIDATION_BYTES / MIB, "MiB PSS"),
        Figure("its host's memory", study["largest_server"] / MIB, host_budget_bytes() / MIB, "MiB USS"),
        Figure("a guest's memory", guest["uss"] / MIB, guest_budget_bytes() / MIB, "MiB USS"),
        Figure("checkpoints every 5 s of it", share["percent"], MAX_CHECKPOINT_PERCENT, "% of wall"),
    ]


def host_budget_bytes() -> int:
    """Return what the host of consolidation.yaml may take."""
    host = _plan(CONSOLIDATION).specs[0]
    mergeable: int = sum(guest["memory_bytes"] for guest in host["guests"]) // PAGE_SIZE
    frames: int = host["memory_bytes"] // PAGE_SIZE
    return MAX_MACHINE_BYTES + MAX_BYTES_PER_FRAME * frames + MAX_BYTES_PER_MERGEABLE_PAGE * mergeable


def guest_budget_bytes() -> int:
    """Return what the guest of the benchmark may take."""
    return MAX_MACHINE_BYTES + MAX_BYTES_PER_FRAME * GUEST_BYTES // PAGE_SIZE


def _measure(what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.epochs", what]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


# --- whole commands ---------------------------------------------------------------------------------------


def run_command(scenario: Path, out: Path, executor: str) -> dict[str, float]:
    """Run a scenario as a user does; return its seconds, and the largest memory of its processes in bytes."""
    begun = time.perf_counter()
    arguments = ("run", str(scenario), "--executor", executor, "--out", str(out))
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    pss = largest_server = 0
    while True:
        try:
            status = process.wait(PSS_PERIOD_S)
        except subprocess.TimeoutExpired:
            rollups = [rollup for pid in [process.pid, *descendants(process.pid)] for rollup in _rollup(pid)]
            pss = max(pss, sum(rollup["Pss"] for rollup in rollups))
            servers = [rollup["Uss"] for rollup in rollups if rollup["is_server"]]
            largest_server = max([largest_server, *servers])
        else:
            break
    if status != 0:
        raise RuntimeError(f"pagefleet {' '.join(arguments)}: ended with {status}")
    return {"seconds": time.perf_counter() - begun, "pss": pss, "largest_server": largest_server}


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except OSError:  # it has ended
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _rollup(pid: int) -> Iterator[dict[str, int]]:
    """Yield a process's memory in bytes; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return
    sizes = {line.split(":")[0]: int(line.split()[1]) * KIB for line in lines}
    is_server = int(b"MachineServer" in command)
    yield {"Pss": sizes["Pss"], "Uss": sizes["Private_Dirty"], "is_server": is_server}


# --- in processes of their own ----------------------------------------------------------------------------


class TimedMachine:
    """A machine whose counters include the CPU time of its kernels. Its kernels are loaded when it is built."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        from node.machine import Machine

        Machine({**spec, "memory_bytes": 64 * MIB, "processes": []}).run_until(NS_PER_MS)
        self._machine = Machine(spec)
        self._kernel_cpu_ns = 0
        run = self._machine.run_until_ps

        def timed(ps: int) -> None:
            begun = time.thread_time_ns()
            run(ps)
            self._kernel_cpu_ns += time.thread_time_ns() - begun

        vars(self._machine)["run_until_ps"] = timed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    def counters(self) -> dict[str, int]:
        """Return the machine's counters, and the CPU time of its kernels."""
        return self._machine.counters() | {KERNEL_CPU: self._kernel_cpu_ns}


def build_timed_machine(spec: dict[str, Any]) -> TimedMachine:
    """Build a member of the busy fleet."""
    return TimedMachine(spec)


def busy_fleet() -> dict[str, float]:
    """Run machines that compute all the time, one an actor; return their overhead and CPU."""
    work = {"workload": "zipf", "memory": "32MiB", "operations": "1G"}
    content = {
        "name": "busy",
        "duration": f"{BUSY_EPOCHS * BUSY_EPOCH_MS}ms",
        "epoch": f"{BUSY_EPOCH_MS}ms",
        "checkpoint_every": f"{BUSY_EPOCHS * BUSY_EPOCH_MS}ms",
        "machines_per_actor": 1,
        "metrics_every": f"{BUSY_EPOCHS * BUSY_EPOCH_MS}ms",
        "machines": [{"name": "m", "memory": "128MiB", "count": NR_MEMBERS, "processes": [work]}],
    }
    times: list[float] = []
    result, begun = _run(content, _ray(), TIMED_BUILDER, lambda _progress: times.append(time.perf_counter()))
    wall = times[-1] - begun
    kernel_s = sum(counters[KERNEL_CPU] for counters in result.counters) / NS_PER_S
    cores = len(os.sched_getaffinity(0))
    return {
        "overhead_percent": (wall - kernel_s / cores) / wall * PERCENT,
        "kernel_ms": kernel_s / NR_MEMBERS / BUSY_EPOCHS * MS_PER_S,
    }


def idle_fleet() -> dict[str, float]:
    """Run recorded guests that do next to nothing, all in one actor; return the wall of an epoch."""
    content = {
        "name": "idle",
        "duration": "40s",
        "checkpoint_every": "40s",
        "machines_per_actor": NR_MEMBERS,
        "hosts": [
            {
                "name": "h",
                "memory": "6GiB",
                "ksm": {"run": 0},
                "guests": [{"image": "idle-a", "count": NR_MEMBERS, "replay": "once"}],
            }
        ],
    }
    borders: list[float] = []

    def note(progress: Progress) -> None:
        if progress.now_ns >= SETTLED_NS:
            borders.append(time.perf_counter())

    _run(content, _ray(), NODE_BUILDER, note)
    return {"epoch_ms": (borders[-1] - borders[0]) / (len(borders) - 1) * MS_PER_S}


def checkpoint_share() -> dict[str, float]:
    """Run the study in this process; return which part of the time went into checkpoints."""
    plan = _plan(CONSOLIDATION)
    with tempfile.TemporaryDirectory(prefix="pagefleet-bench-") as folder:
        coordinator, begun = _start(plan, Path(folder), InlineExecutor(), NODE_BUILDER)
        coordinator.run()
        wall_ns = (time.perf_counter() - begun) * NS_PER_S
    return {"percent": sum(run.checkpoint_ns for run in coordinator.cells) / wall_ns * PERCENT}


def memory_of_a_guest() -> dict[str, float]:
    """Let a guest touch nine tenths of its memory, over some epochs; return its process's USS."""
    from node.machine import build_member
    from shared.messages import RunUntil

    memory_bytes = GUEST_BYTES * 9 // 10 // PAGE_SIZE * PAGE_SIZE
    work = {"workload": "sequential", "memory_bytes": memory_bytes, "operations": memory_bytes // PAGE_SIZE}
    spec = {"kind": "guest", "guest": 0, "memory_bytes": GUEST_BYTES, "processes": [work]}
    guest = build_member(spec)
    epoch_ns = 100 * NS_PER_MS
    for epoch in range(GUEST_EPOCHS):
        guest.run_epoch(RunUntil(epoch, epoch * epoch_ns, (epoch + 1) * epoch_ns))
    if guest.counters()["operations"] != work["operations"]:
        raise RuntimeError(f"the guest has touched {guest.counters()['operations']} pages only")
    return {"uss": uss_bytes()}


def _ray() -> Executor:
    from cluster.ray_config import load_ray_config
    from cluster.ray_executor import RayExecutor

    return RayExecutor(load_ray_config())


def _plan(scenario: Path) -> Plan:
    return make_plan(load_scenario(scenario), scenario)


def _run(
    content: dict[str, Any], executor: Executor, builder: str, on_progress: Callable[[Progress], None]
) -> tuple[FleetResult, float]:
    """Run a scenario; return its result and when its first epoch began."""
    with tempfile.TemporaryDirectory(prefix="pagefleet-bench-") as folder:
        scenario = Path(folder) / "scenario.yaml"
        scenario.write_text(yaml.safe_dump(content))
        try:
            coordinator, begun = _start(_plan(scenario), Path(folder), executor, builder, on_progress)
            return coordinator.run(), begun
        finally:
            executor.close()


def _start(
    plan: Plan,
    folder: Path,
    executor: Executor,
    builder: str,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> tuple[Coordinator, float]:
    supervisor = Supervisor(executor)
    coordinator = Coordinator(plan, supervisor, CheckpointStore(folder), on_progress)
    records = coordinator.server_records(builder, resume=False)
    executor.start(len(records))
    supervisor.start(records)
    return coordinator, time.perf_counter()


MEASUREMENTS: Final = {
    "busy": busy_fleet,
    "idle": idle_fleet,
    "guest": memory_of_a_guest,
    "checkpoints": checkpoint_share,
}


def main() -> None:
    """Measure one thing and print it as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=sorted(MEASUREMENTS))
    print(json.dumps(MEASUREMENTS[parser.parse_args().what]()))


if __name__ == "__main__":
    main()
