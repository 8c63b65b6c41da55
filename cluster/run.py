"""``pagefleet run``: from a scenario file to a run directory.

scenario, plan, memory, address     wrong: InputError, nothing is left behind
run directory                       says "interrupted" from here on
kernels warm, servers up, members   wrong: InputError, the directory is removed again
the epochs                          wrong: RunFailed, the directory says "failed"
results                             the directory says "finished"
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.config import Scenario
from cluster.coordinator import Coordinator
from cluster.errors import InputError, RunFailed, one_line
from cluster.executor import Executor, InlineExecutor
from cluster.machine_server import NODE_BUILDER
from cluster.plan import Plan, list_members, make_plan, real_bytes_needed
from cluster.progress import live_progress, say
from cluster.report import write_report
from cluster.results import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    MANIFEST,
    SUMMARY,
    RunDirectory,
    find_interrupted,
    new_manifest,
    read_json,
)
from cluster.scenario_file import load_scenario
from cluster.summary import summarize
from cluster.supervision import Supervisor
from cluster.warming import warming_kernels
from shared.units import format_size

RUNS: Final = Path("runs")
INLINE: Final = "inline"
RAY: Final = "ray"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for."""

    scenario: Path
    settings: tuple[str, ...] = ()
    seed: int | None = None
    out: Path | None = None
    executor: str = RAY
    address: str | None = None
    resume: bool = False
    report: bool = True
    progress: bool = True
    builder: str = NODE_BUILDER


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A finished run."""

    path: Path
    manifest: dict[str, Any]
    summary: dict[str, Any]


def prepare(file: Path, settings: tuple[str, ...], seed: int | None) -> tuple[Scenario, Plan]:
    """Load a scenario and check all that can be checked without running it. Raises ``InputError``."""
    scenario = load_scenario(file, settings, seed)
    plan = make_plan(scenario, file)
    needed, there = real_bytes_needed(plan), available_bytes()
    if needed > there:
        raise InputError(
            f"{file}: the fleet needs about {format_size(needed)} of real memory, "
            f"{format_size(there)} is available"
        )
    return scenario, plan


def run_scenario(request: RunRequest) -> RunOutcome:
    """Run a scenario, or go on with an interrupted run, and return what it found.

    Raises ``InputError`` before the first epoch, ``RunFailed`` after.
    """
    scenario, plan = prepare(request.scenario, request.settings, request.seed)
    executor = _make_executor(request)
    directory = _open_directory(request, scenario, plan)
    if directory.manifest["status"] == FINISHED:
        say(f"{directory.path}: has finished already")
        return RunOutcome(directory.path, directory.manifest, read_json(directory.path / SUMMARY))
    fleet = _Fleet(request, plan, executor, directory)
    try:
        return fleet.run()
    finally:
        executor.close()


class _Fleet:
    """One run: its executor, its directory, and what it costs."""

    def __init__(self, request: RunRequest, plan: Plan, executor: Executor, directory: RunDirectory) -> None:
        self.request = request
        self.plan = plan
        self.executor = executor
        self.directory = directory
        self.supervisor = Supervisor(executor, say)
        self.begun = time.monotonic()

    def run(self) -> RunOutcome:
        directory = self.directory
        with live_progress(wanted=self.request.progress) as on_progress:
            coordinator = Coordinator(self.plan, self.supervisor, directory.checkpoints, on_progress)
            try:
                self._start(coordinator)
            except InputError:
                if not self.request.resume:
                    directory.remove()
                raise
            try:
                result = coordinator.run()
                summary = summarize(self.plan, result)
                self._add_cost(result.cpu_ns)
                directory.finish(self.plan, result, summary)
            except RunFailed as error:
                self._add_cost(0)
                directory.write_manifest(status=FAILED, error=one_line(error), error_detail=error.detail)
                raise RunFailed(
                    f"{error} ({directory.path / MANIFEST} has the details)", error.detail
                ) from None
            except (
                BaseException
            ) as error:  # SIGINT and SIGTERM too: the manifest says interrupted, now with the cost
                self._add_cost(0)
                directory.write_manifest(status=INTERRUPTED, error=one_line(error))
                raise
        self._write_report()
        return RunOutcome(directory.path, directory.manifest, summary)

    def _write_report(self) -> None:
        """Write the report of a run that has finished, with or without it."""
        if self.request.report:
            try:
                write_report(self.directory.path)
            except InputError as error:
                say(one_line(error))

    def _start(self, coordinator: Coordinator) -> None:
        """Bring everything up to the first epoch: records, servers, kernels, members."""
        records = coordinator.server_records(self.request.builder, resume=self.request.resume)
        with warming_kernels(self.request.builder):
            self.executor.start(len(records))
        self.supervisor.start(records)

    def _add_cost(self, servers_cpu_ns: int) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        if self.request.executor == RAY:
            cpu_seconds += servers_cpu_ns / 1e9
        self.directory.add_cost(time.monotonic() - self.begun, cpu_seconds)
        self.directory.manifest["restorations"] = (
            self.directory.manifest.get("restorations", 0) + self.supervisor.restorations
        )


def _make_executor(request: RunRequest) -> Executor:
    if request.executor == INLINE:
        if request.address is not None:
            raise InputError(f"--address {request.address}: goes with --executor ray")
        return InlineExecutor()
    from cluster.ray_config import load_ray_config
    from cluster.ray_executor import RayExecutor, check_address

    config = load_ray_config()
    if request.address is not None:
        config = config.model_copy(update={"address": request.address})
    if config.address is not None:
        check_address(config.address)
    return RayExecutor(config)


def _open_directory(request: RunRequest, scenario: Scenario, plan: Plan) -> RunDirectory:
    resolved = scenario.model_dump(mode="json")
    manifest = new_manifest(resolved, request.scenario, request.executor) | {"members": list_members(plan)}
    stem = f"{scenario.name}-{scenario.seed}"
    if request.resume:
        path = request.out or find_interrupted(RUNS, stem, resolved)
        return RunDirectory.resume(path, manifest)
    if request.out is not None:
        return RunDirectory.create(request.out, manifest)
    return RunDirectory.create_numbered(RUNS, stem, manifest)


def available_bytes() -> int:
    """Return the real memory that a new process may hope for."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
