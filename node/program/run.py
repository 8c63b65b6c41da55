"""A program under way: its processes, their named mappings, and what its snapshots saw."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from node import procfs
from node.counters import Current, Request
from node.fault.kinds import Access
from node.golden_layout import buddy_counters
from node.kthread import run_kthreads
from node.proc.pagemap import mapping_pages
from node.program.text import Command, ProgramError
from node.touch import become
from node.vm.mm_init import new_mm
from shared.constants import PAGE_SIZE, PS_PER_MS

if TYPE_CHECKING:
    from node.state import State


class NotModelled(ProgramError):  # noqa: N818 (it reads as what it says of the program)
    """Parts of the language whose mechanisms are not modelled yet; ``names`` has each once."""

    def __init__(self, names: Collection[str], where: str = "") -> None:
        super().__init__(f"{where}not modelled yet: {', '.join(names)}")
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A named mapping of a process: [start, end)."""

    start: int
    end: int


@dataclass(slots=True)
class Process:
    """A process of a program."""

    mm: int
    mappings: dict[str, Mapping] = field(default_factory=dict)
    alive: bool = True


@dataclass(slots=True)
class ProgramResult:
    """What the snapshots saw: for each, its name and every counter by the goldens' names."""

    snapshots: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)  # of the processes that live at the end, by name
    paths: dict[int, str] = field(default_factory=dict)  # of the files that it used, by inode


class Driver(Protocol):
    """Who starts a program's processes, and what that itself costs."""

    controller: int  # address space of the task that does the controller's commands; 0: none

    def spawn(self) -> int:
        """Return the address space of a new process, or NIL."""

    def forked(self, parent: int, child: int) -> None:
        """Note a fork."""

    def before_command(self, mm_index: int) -> None:
        """Note that a process is about to do a command."""


class PlainDriver:
    """Processes that have nothing but what the program gives them."""

    controller = 0

    def __init__(self, state: "State") -> None:
        self.state = state

    def spawn(self) -> int:
        """Return an empty address space, or NIL."""
        return new_mm(self.state)

    def forked(self, parent: int, child: int) -> None:
        """Do nothing."""

    def before_command(self, mm_index: int) -> None:
        """Do nothing."""


class Run:
    """A program under way."""

    def __init__(self, state: "State", harness: Driver) -> None:
        self.state = state
        self.harness = harness
        self.processes: dict[str, Process] = {}
        self.result = ProgramResult()
        self.snapshot("boot")

    def become(self, mm_index: int) -> None:
        """Let a process, or the controller, run."""
        become(self.state, mm_index)

    def process(self, command: Command, name: str) -> Process:
        """Return a living process by its name. Raises ``ProgramError`` if there is none."""
        process = self.processes.get(name)
        if process is None or not process.alive:
            raise command.fail(f"there is no process {name}")
        return process

    def snapshot(self, name: str) -> None:
        """Note every counter."""
        values = {f"vmstat.{key}": value for key, value in procfs.vmstat(self.state).items()}
        values |= {f"ksm.{key}": value for key, value in procfs.ksm(self.state).items()}
        values |= buddy_counters(self.state)
        for who, process in self.processes.items():
            if not process.alive:
                continue
            own = procfs.process(self.state, process.mm)
            values |= {f"proc.{who}.{key}": value for key, value in own.items()}
            for label, mapping in process.mappings.items():
                pages = mapping_pages(self.state, process.mm, mapping.start, mapping.end)
                values |= {f"proc.{who}.map.{label}.{key}": value for key, value in pages.items()}
        self.result.snapshots.append((name, values))

    def request(
        self, vaddr: int, nr_pages: int, *, stride: int = PAGE_SIZE, write: bool = False, value: int = 0
    ) -> None:
        """Fill in what the batches of node/touch.py are to do."""
        request = self.state.request
        request[Request.A0] = vaddr
        request[Request.A1] = nr_pages
        request[Request.A2] = stride
        request[Request.A3] = Access.WRITE if write else Access.READ
        request[Request.A4] = value

    def pass_time(self, milliseconds: int) -> None:
        """Let ksmd and kswapd run while the controller sleeps."""
        until = self.state.current[Current.CLOCK_PS] + milliseconds * PS_PER_MS
        run_kthreads(self.state, until)
        self.state.current[Current.CLOCK_PS] = until


def mapping_range(command: Command, process: Process) -> tuple[str, Mapping, int, int]:
    """Return the mapping that the command names, and the [start, end) of it that off= and len= say."""
    name = command.word(0, "a mapping")
    mapping = process.mappings.get(name)
    if mapping is None:
        raise command.fail(f"{command.process} has no mapping {name}")
    start = mapping.start + command.number("off", 0)
    end = min(start + command.number("len", mapping.end - start), mapping.end)
    if not mapping.start <= start <= end:
        raise command.fail(f"off={command.options.get('off')} lies outside mapping {name}")
    return name, mapping, start, end


def only(command: Command, *known: str) -> None:
    """Refuse options and words whose mechanism is not modelled."""
    for word in (*command.words[2:], *command.options):
        if word not in known:
            raise NotModelled([f"{command.verb} {word}"], f"line {command.line}: ")
