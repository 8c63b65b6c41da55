r"""The epoch loop: who runs when, and what is recorded.

    guests' servers   [RUN e] ... all answered -.                 .-> [RUN e+1] ...
                                                 \               /
    host's server                                 `-> [HOST e] -'      answers go with the guests' next orders

Each cell goes through its epochs alone, as fast as its members do; the loop waits for whichever server
answers next. A cell of plain machines has no host phase. What is recorded depends on simulated time and on
the order of members in the plan only, so neither the executor nor the packing shows in it.

A cell ends with the scenario's duration, or when all its guests have finished. A plain machine rests as soon
as it has finished, whatever the others of its server do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cluster.calls import Advanced, Inspected, Phase
from cluster.cell_run import CellRun, last_samples, sorted_samples, take_up
from cluster.checkpoints import CellCheckpoint, CheckpointStore, Event, Sample
from cluster.plan import Plan, Spec
from cluster.supervision import ServerRecord, Supervisor
from shared.messages import HostPhase, RunUntil, encode

FINISHED: Final = "finished"
OOM_KILL: Final = "oom_kill"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    now_ns: int  # of the cell that is furthest behind
    duration_ns: int
    nr_guests: int
    host_counters: dict[str, int]  # summed over the hosts, at their last samples


@dataclass(slots=True)
class FleetResult:
    """What a run measured. The order of everything is the plan's."""

    end_ns: int
    digests: list[str]  # a member
    counters: list[dict[str, int]]  # a member, at its end
    snapshots: list[bytes]  # a member
    samples: list[Sample]  # by time, then member
    events: list[Event]  # by time, then member
    cpu_ns: int  # of the servers' processes


class Coordinator:
    """Drives a plan's cells from start or checkpoint to end."""

    def __init__(
        self,
        plan: Plan,
        supervisor: Supervisor,
        store: CheckpointStore,
        on_progress: Callable[[Progress], None] = lambda _progress: None,
    ) -> None:
        self.plan = plan
        self.supervisor = supervisor
        self.store = store
        self._on_progress = on_progress
        self._latest: dict[int, dict[str, int]] = {}  # counters of hosts by member
        self.cells: list[CellRun] = []
        self._cell_of_server: list[CellRun] = []
        for index, cell in enumerate(plan.cells):
            run = CellRun(index, cell, first_server=len(self._cell_of_server))
            run.finished_ns = [None] * len(run.runners)
            run.answers = [b""] * len(run.runners)
            self.cells.append(run)
            self._cell_of_server.extend(run for _ in run.servers())

    @property
    def nr_servers(self) -> int:
        """How many servers the plan needs."""
        return len(self._cell_of_server)

    def server_records(self, builder: str, *, resume: bool) -> list[ServerRecord]:
        """Return what each server is built from: fresh, or with ``resume`` the last checkpoints.

        Raises ``InputError`` for a checkpoint that is damaged or of another fleet.
        """
        records = []
        for run in self.cells:
            checkpoint = self.store.load(run.index) if resume else None
            if checkpoint is not None:
                take_up(run, checkpoint, self.plan)
            for position, members in enumerate(run.servers()):
                specs: list[Spec] = [self.plan.specs[number] for number in members]
                snapshots = checkpoint.snapshots[position] if checkpoint is not None else []
                records.append(ServerRecord(builder, specs, run.epoch, snapshots))
        return records

    def run(self) -> FleetResult:
        """Run all cells to their ends. Raises ``RunFailed`` if a member fails."""
        for run in self.cells:
            self._begin_epoch(run)
        while any(run.waiting for run in self.cells):
            server, answer = self.supervisor.wait()
            run = self._cell_of_server[server]
            run.waiting -= 1
            if run.cell.host is not None and server == run.host_server:
                self._take_host_answer(run, answer)
            else:
                self._take_reports(run, server, answer)
        return self._result(self.supervisor.inspect())

    # --- one epoch of one cell

    def _span(self, run: CellRun) -> tuple[int, int]:
        start_ns = run.epoch * self.plan.epoch_ns
        return start_ns, min(start_ns + self.plan.epoch_ns, self.plan.duration_ns)

    def _begin_epoch(self, run: CellRun) -> None:
        start_ns, _ = self._span(run)
        if start_ns >= self.plan.duration_ns or all(time is not None for time in run.finished_ns):
            run.done = True
            run.end_ns = min(start_ns, self.plan.duration_ns)
            return
        run.reports = [b""] * len(run.runners)
        at = 0
        for offset, packed in enumerate(run.cell.runners):
            orders = [
                b"" if self._rests(run, runner) else self._order(run, runner)
                for runner in range(at, at + len(packed))
            ]
            self._advance(run, run.first_server + offset, Phase.RUN, orders)
            at += len(packed)

    def _order(self, run: CellRun, runner: int) -> bytes:
        return encode(RunUntil(run.epoch, *self._span(run), run.answers[runner]))

    def _rests(self, run: CellRun, runner: int) -> bool:
        return run.cell.host is None and run.finished_ns[runner] is not None

    def _advance(self, run: CellRun, server: int, phase: Phase, orders: list[bytes]) -> None:
        _, end_ns = self._span(run)
        last = end_ns == self.plan.duration_ns
        self.supervisor.advance(
            server,
            phase,
            orders,
            sample=last or end_ns % self.plan.metrics_every_ns == 0,
            snapshot=not last and end_ns % self.plan.checkpoint_every_ns == 0,
        )
        run.waiting += 1

    def _take_reports(self, run: CellRun, server: int, answer: Advanced) -> None:
        """Note what the runners of one server report; after the last server, go on."""
        _, end_ns = self._span(run)
        offset = server - run.first_server
        at = sum(len(packed) for packed in run.cell.runners[:offset])
        for position, number in enumerate(run.cell.runners[offset]):
            runner = at + position
            run.reports[runner] = answer.replies[position]
            if answer.counters and not self._rests(run, runner):
                run.samples.append((end_ns, number, answer.counters[position]))
            if answer.flags[position] and run.finished_ns[runner] is None:
                run.finished_ns[runner] = end_ns
                if runner not in run.killed:
                    run.events.append((end_ns, number, FINISHED))
        run.snapshots[server] = answer.snapshots
        if run.waiting:
            return
        if run.cell.host is None:
            self._end_epoch(run)
        else:
            start_ns, end_ns = self._span(run)
            order = HostPhase(run.epoch, start_ns, end_ns, tuple(run.reports))
            self._advance(run, run.host_server, Phase.HOST, [encode(order)])

    def _take_host_answer(self, run: CellRun, answer: Advanced) -> None:
        assert run.cell.host is not None
        _, end_ns = self._span(run)
        run.answers = answer.replies
        if answer.counters:
            run.samples.append((end_ns, run.cell.host, answer.counters[0]))
            self._latest[run.cell.host] = answer.counters[0]
        for runner, killed in enumerate(answer.flags):
            if killed and runner not in run.killed:
                run.killed.add(runner)
                run.events.append((end_ns, run.runners[runner], OOM_KILL))
        run.snapshots[run.host_server] = answer.snapshots
        self._end_epoch(run)

    def _end_epoch(self, run: CellRun) -> None:
        run.epoch += 1
        if all(run.snapshots.values()):
            self._save(run)
        run.snapshots.clear()
        self._begin_epoch(run)
        self._report_progress()

    def _save(self, run: CellRun) -> None:
        checkpoint = CellCheckpoint(
            epoch=run.epoch,
            snapshots=[run.snapshots[run.first_server + offset] for offset in range(len(run.servers()))],
            answers=run.answers,
            finished_ns=run.finished_ns,
            killed=sorted(run.killed),
            events=run.events,
            samples=sorted_samples(run.samples[run.nr_saved_samples :]),
        )
        self.store.save(run.index, checkpoint)
        run.nr_saved_samples = len(run.samples)

    # --- all cells

    def _report_progress(self) -> None:
        duration_ns = self.plan.duration_ns
        now_ns = min(duration_ns if run.done else self._span(run)[0] for run in self.cells)
        counters: dict[str, int] = {}
        for of_host in self._latest.values():
            for name, value in of_host.items():
                counters[name] = counters.get(name, 0) + value
        self._on_progress(
            Progress(min(now_ns, self.plan.duration_ns), self.plan.duration_ns, self.plan.nr_guests, counters)
        )

    def _result(self, inspected: list[Inspected]) -> FleetResult:
        nr_members = len(self.plan.specs)
        result = FleetResult(
            end_ns=max(run.end_ns for run in self.cells),
            digests=[""] * nr_members,
            counters=[{} for _ in range(nr_members)],
            snapshots=[b""] * nr_members,
            samples=[],
            events=[],
            cpu_ns=sum(found.cpu_ns for found in inspected),
        )
        for run in self.cells:
            for offset, members in enumerate(run.servers()):
                found = inspected[run.first_server + offset]
                for position, number in enumerate(members):
                    result.digests[number] = found.digests[position]
                    result.counters[number] = found.counters[position]
                    result.snapshots[number] = found.snapshots[position]
            result.samples.extend(run.samples)
            result.samples.extend(last_samples(run, result.counters))
            result.events.extend(run.events)
        result.samples = sorted_samples(result.samples)
        result.events.sort()
        return result
