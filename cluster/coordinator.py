r"""The epoch loop: who runs when, and what is recorded.

    guests' servers   [RUN e] ... all answered -.                 .-> [RUN e+1] ...
                                                 \               /
    host's server                                 `-> [HOST e] -'      answers go with the guests' next orders

Each cell goes through its epochs alone, as fast as its members do; the loop waits for whichever server
answers next. A cell of plain machines has no host phase. With ``check_invariants`` every border is audited
before the next epoch begins: guests check themselves and say what their frames hold, then the host checks
itself and compares.

What is recorded depends on simulated time and on
the order of members in the plan only, so neither the executor nor the packing shows in it.

A cell ends with the scenario's duration, or when all its guests have finished. A plain machine rests as soon
as it has finished, whatever the others of its server do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cluster.calls import Advanced, Audited, Inspected, Phase
from cluster.cell_run import CellRun, sorted_samples, take_up, unsampled_ends
from cluster.checkpoints import CellCheckpoint, CheckpointStore, Event, PackedLook, Sample, is_worth_it
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
    looks: list[PackedLook] = field(default_factory=list)  # by member, then time


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
            if isinstance(answer, Audited):
                self._take_audit(run, server, answer)
                continue
            run.work_ns += answer.work_ns
            run.checkpoint_ns += answer.snapshot_ns
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
        run.is_saved = self._is_saved(run)
        run.reports = [b""] * len(run.runners)
        at = 0
        for offset, packed in enumerate(run.cell.runners):
            orders = [
                b"" if self._rests(run, runner) else self._order(run, runner)
                for runner in range(at, at + len(packed))
            ]
            self._advance(run, run.first_server + offset, Phase.RUN, orders)
            at += len(packed)

    def _is_saved(self, run: CellRun) -> bool:
        """Decide whether the epoch that begins is to end with a checkpoint."""
        _, end_ns = self._span(run)
        if end_ns == self.plan.duration_ns or end_ns % self.plan.checkpoint_every_ns:
            return False
        return is_worth_it(run.work_ns, run.checkpoint_ns, run.nr_checkpoints, self.store.max_percent)

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
            snapshot=run.is_saved,
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
                _note_look(run, end_ns, number, answer.looks[position])
            if answer.flags[position] and run.finished_ns[runner] is None:
                run.finished_ns[runner] = end_ns
                if runner not in run.killed:
                    run.events.append((end_ns, number, FINISHED))
        run.snapshots[server] = answer.snapshots
        if run.waiting:
            return
        if run.cell.host is None:
            self._reach_border(run)
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
            _note_look(run, end_ns, run.cell.host, answer.looks[0])
            self._latest[run.cell.host] = answer.counters[0]
        for runner, killed in enumerate(answer.flags):
            if killed and runner not in run.killed:
                run.killed.add(runner)
                run.events.append((end_ns, run.runners[runner], OOM_KILL))
        run.snapshots[run.host_server] = answer.snapshots
        self._reach_border(run)

    def _reach_border(self, run: CellRun) -> None:
        """Go on to the next epoch, at once or once all has been found well."""
        if not self.plan.check_invariants:
            self._end_epoch(run)
            return
        run.audited.clear()
        for offset in range(len(run.cell.runners)):
            self._audit(run, run.first_server + offset, [])

    def _audit(self, run: CellRun, server: int, contents: list[bytes]) -> None:
        self.supervisor.audit(server, contents)
        run.waiting += 1

    def _take_audit(self, run: CellRun, server: int, answer: Audited) -> None:
        """Note what the guests of one server hold; the host is asked last."""
        if run.cell.host is not None and server == run.host_server:
            self._end_epoch(run)
            return
        run.audited[server] = answer.contents
        if run.waiting:
            return
        if run.cell.host is None:
            self._end_epoch(run)
            return
        in_order = [contents for _, of_server in sorted(run.audited.items()) for contents in of_server]
        living = [b"" if runner in run.killed else contents for runner, contents in enumerate(in_order)]
        self._audit(run, run.host_server, living)

    def _end_epoch(self, run: CellRun) -> None:
        run.epoch += 1
        checkpoint = self._checkpoint(run) if run.is_saved else None
        run.snapshots.clear()
        self._begin_epoch(run)
        if checkpoint is not None:  # written while the members are at work again
            self._save(run, checkpoint)
        self._report_progress()

    def _checkpoint(self, run: CellRun) -> CellCheckpoint:
        checkpoint = CellCheckpoint(
            epoch=run.epoch,
            snapshots=[run.snapshots[run.first_server + offset] for offset in range(len(run.servers()))],
            answers=run.answers,
            finished_ns=run.finished_ns,
            killed=sorted(run.killed),
            events=run.events,
            samples=sorted_samples(run.samples[run.nr_saved_samples :]),
            looks=run.looks[run.nr_saved_looks :],
        )
        run.nr_saved_samples = len(run.samples)
        run.nr_saved_looks = len(run.looks)
        return checkpoint

    def _save(self, run: CellRun, checkpoint: CellCheckpoint) -> None:
        begun_ns = time.monotonic_ns()
        self.store.save(run.index, checkpoint)
        spent_ns = time.monotonic_ns() - begun_ns
        run.work_ns += spent_ns
        run.checkpoint_ns += spent_ns
        run.nr_checkpoints += 1

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
        looks = [b""] * nr_members
        for run in self.cells:
            for offset, members in enumerate(run.servers()):
                found = inspected[run.first_server + offset]
                for position, number in enumerate(members):
                    result.digests[number] = found.digests[position]
                    result.counters[number] = found.counters[position]
                    result.snapshots[number] = found.snapshots[position]
                    looks[number] = found.looks[position]
            ends = unsampled_ends(run)
            result.samples.extend(run.samples)
            result.samples.extend((time_ns, number, result.counters[number]) for time_ns, number in ends)
            for time_ns, number in ends:
                _note_look(run, time_ns, number, looks[number])
            result.looks.extend(run.looks)
            result.events.extend(run.events)
        result.samples = sorted_samples(result.samples)
        result.looks.sort(key=lambda look: (look[1], look[0]))
        result.events.sort()
        return result


def _note_look(run: CellRun, time_ns: int, number: int, look: bytes) -> None:
    """Keep a look at a member that has something to show."""
    if look:
        run.looks.append((time_ns, number, look))
