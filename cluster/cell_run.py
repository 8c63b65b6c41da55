"""One cell on its way through the epochs: what the coordinator remembers of it between two answers.

Which member of which server a thing belongs to is told by its place: servers in the order of the plan, a
cell's runners through all its servers, the host's server last.
"""

from dataclasses import dataclass, field

from cluster.checkpoints import CellCheckpoint, Event, PackedLook, Sample
from cluster.errors import InputError
from cluster.plan import Cell, Plan


@dataclass(slots=True)
class CellRun:
    """A cell under way."""

    index: int
    cell: Cell
    first_server: int
    epoch: int = 0
    waiting: int = 0  # servers that have yet to answer
    done: bool = False
    end_ns: int = 0
    finished_ns: list[int | None] = field(default_factory=list)  # [runner]
    reports: list[bytes] = field(default_factory=list)  # [runner] of this epoch
    answers: list[bytes] = field(default_factory=list)  # [runner] of the last
    killed: set[int] = field(default_factory=set)  # runners
    snapshots: dict[int, list[bytes]] = field(default_factory=dict)  # by server, of this epoch
    audited: dict[int, list[bytes]] = field(default_factory=dict)  # by server, at this border
    is_saved: bool = False  # this epoch ends with a checkpoint
    work_ns: int = 0  # real time that its servers have worked, and
    checkpoint_ns: int = 0  # of it, for checkpoints
    nr_checkpoints: int = 0
    samples: list[Sample] = field(default_factory=list)
    nr_saved_samples: int = 0
    looks: list[PackedLook] = field(default_factory=list)
    nr_saved_looks: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def runners(self) -> list[int]:
        """Numbers of the guests or plain machines, in order."""
        return [number for packed in self.cell.runners for number in packed]

    @property
    def host_server(self) -> int:
        """The server of the host."""
        return self.first_server + len(self.cell.runners)

    def servers(self) -> list[list[int]]:
        """Return the members of each server."""
        host = [] if self.cell.host is None else [[self.cell.host]]
        return [list(packed) for packed in self.cell.runners] + host


def sorted_samples(samples: list[Sample]) -> list[Sample]:
    """Return samples in the order of time, then of members."""
    return sorted(samples, key=lambda sample: sample[:2])


def unsampled_ends(run: CellRun) -> list[tuple[int, int]]:
    """Return time and number of each member that ended between two sampling times."""
    sampled = {(time, number) for time, number, _ in run.samples}
    ends: dict[int, int] = {}
    for runner, number in enumerate(run.runners):
        finished_ns = run.finished_ns[runner]
        ends[number] = run.end_ns if run.cell.host is not None or finished_ns is None else finished_ns
    if run.cell.host is not None:
        ends[run.cell.host] = run.end_ns
    return [(time, number) for number, time in ends.items() if (time, number) not in sampled]


def take_up(run: CellRun, checkpoint: CellCheckpoint, plan: Plan) -> None:
    """Put a cell where its checkpoint was taken."""
    same_packing = [len(of_server) for of_server in checkpoint.snapshots] == list(map(len, run.servers()))
    if not same_packing or checkpoint.epoch * plan.epoch_ns > plan.duration_ns:
        raise InputError(f"cell-{run.index}: the checkpoint is of another fleet")
    run.epoch = checkpoint.epoch
    run.answers = checkpoint.answers
    run.finished_ns = checkpoint.finished_ns
    run.killed = set(checkpoint.killed)
    run.events = checkpoint.events
    run.samples = checkpoint.samples
    run.nr_saved_samples = len(run.samples)
    run.looks = checkpoint.looks
    run.nr_saved_looks = len(run.looks)
