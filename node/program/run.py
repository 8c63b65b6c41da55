"""A program under way: its processes, their named mappings, and what its snapshots saw."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from node import procfs
from node.counters import Current, Knob, Request
from node.fault.kinds import Access
from node.golden_layout import buddy_counters
from node.joints import exit_mmap
from node.kthread import Kthread, run_kthreads
from node.pagecache.inode import new_file
from node.proc.meminfo import meminfo_kib
from node.proc.pagemap import mapping_pages
from node.program.text import Command, ProgramError
from node.touch import become
from node.vm.mm_init import new_mm
from shared.constants import NIL, PAGE_SIZE, PS_PER_MS
from shared.streams import splitmix64
from shared.wrap64 import to_signed

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
    """A process of a program.

    One that the OOM killer ends leaves its name behind: ``mm`` is nobody's then, its last counts are in ``remains``.
    """

    mm: int
    mappings: dict[str, Mapping] = field(default_factory=dict)
    alive: bool = True
    cpu: int = 0  # where its commands in the background run
    remains: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class ProgramResult:
    """What the snapshots saw: for each, its name and every counter by the goldens' names."""

    snapshots: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)  # of the processes that live at the end, by name
    paths: dict[int, str] = field(default_factory=dict)  # of the files that it used, by inode


class Driver(Protocol):
    """Who starts a program's processes, and what that itself costs."""

    controller: int  # address space of the task that does the controller's commands; 0: none
    files: dict[str, int]  # those that the program can map: their sizes in bytes

    def spawn(self) -> int:
        """Return the address space of a new process, or NIL."""

    def forked(self, parent: int, child: int) -> None:
        """Note a fork."""

    def exited(self, mm_index: int) -> None:
        """Note that a process has ended."""

    def before_snapshot(self, name: str) -> None:
        """Note that every counter is about to be read."""

    def before_program(self) -> None:
        """Note that a trivial program is about to be started."""

    def after_program(self, mm_index: int) -> None:
        """Note that it has ended; ``mm_index`` is of the process that started it."""

    def before_command(self, mm_index: int) -> None:
        """Note that a process is about to do a command."""


class PlainDriver:
    """Processes that have nothing but what the program gives them."""

    controller = 0

    def __init__(self, state: "State", files: dict[str, int]) -> None:
        self.state = state
        self.files = files

    def spawn(self) -> int:
        """Return an empty address space, or NIL."""
        return new_mm(self.state)

    def forked(self, parent: int, child: int) -> None:
        """Do nothing."""

    def exited(self, mm_index: int) -> None:
        """Do nothing."""

    def before_snapshot(self, name: str) -> None:
        """Do nothing."""

    def before_program(self) -> None:
        """Do nothing."""

    def after_program(self, mm_index: int) -> None:
        """Do nothing."""

    def before_command(self, mm_index: int) -> None:
        """Do nothing."""


class Run:
    """A program under way."""

    def __init__(self, state: "State", harness: Driver) -> None:
        self.state = state
        self.harness = harness
        self.processes: dict[str, Process] = {}
        self.inodes: dict[str, int] = {}  # of the files that the program has used
        self.nr_started = 0
        self.result = ProgramResult()
        self.snapshot("boot")

    def add(self, name: str, process: Process) -> None:
        """Give a process a name, and a CPU."""
        process.cpu = self.nr_started % int(self.state.knob[Knob.NR_CPUS])
        self.nr_started += 1
        self.processes[name] = process

    def inode(self, command: Command, path: str) -> int:
        """Return the inode of a file. Raises ``ProgramError`` if there is no such file."""
        if path not in self.inodes:
            size = self.harness.files.get(path)
            if size is None:
                known = " ".join(sorted(self.harness.files)) or "none; '#! files: PATH=SIZE ...' makes some"
                raise command.fail(f"there is no file {path} (there are {known})")
            nr_pages = -(-size // PAGE_SIZE)
            inode = new_file(self.state, nr_pages, self._content_key())
            if inode == NIL:
                raise command.fail("the machine has no inode left")
            self.inodes[path] = inode
        return self.inodes[path]

    def _content_key(self) -> int:
        return to_signed(splitmix64(int(self.state.knob[Knob.CONTENT_KEY]), len(self.inodes)))

    def become(self, mm_index: int) -> None:
        """Let a process, or the controller, run."""
        become(self.state, mm_index)

    def process(self, command: Command, name: str) -> Process:
        """Return a living process by its name. Raises ``ProgramError`` if there is none."""
        process = self.processes.get(name)
        if process is None or not process.alive:
            raise command.fail(f"there is no process {name}")
        return process

    def let_kswapd_run(self) -> None:
        """Let kswapd do what a command woke it for: the processor is idle until the next one.

        # Differs from Linux: on one processor it does not run in the midst of a command.
        """
        now = int(self.state.current[Current.CLOCK_PS])
        if self.state.kthread[Kthread.KSWAPD].clock_ps <= now:
            self.pass_time(0)

    def note_deaths(self, running: "Process | None") -> None:
        """Note which processes the OOM killer has ended during a command; ``running`` did it, if it was a process's.

        The one that was running comes to its end now, on its way out of the kernel, and whoever waits for its answer
        takes note of it: it is dead, and no more is known. Another one stays as a zombie, with its counts of faults.
        """
        for process in self.processes.values():
            mm = self.state.mm[process.mm]
            if not process.alive or (mm.alive and not mm.oom_victim):
                continue
            process.alive = False
            process.remains = {"dead": 1}
            if process is running:
                process.mappings.clear()
            else:
                process.remains |= {"minflt": int(mm.minflt), "majflt": int(mm.majflt), "oom_score": 0}
            if mm.alive:
                exit_mmap(self.state, process.mm)
            self.harness.exited(process.mm)

    def is_dead(self, name: str) -> bool:
        """Return whether a process of that name was ended by the OOM killer."""
        return name in self.processes and not self.processes[name].alive

    def snapshot(self, name: str) -> None:
        """Note every counter."""
        values = {f"vmstat.{key}": value for key, value in procfs.vmstat(self.state).items()}
        values |= {f"ksm.{key}": value for key, value in procfs.ksm(self.state).items()}
        values |= {f"meminfo.{key}": value for key, value in meminfo_kib(self.state).items()}
        values |= buddy_counters(self.state)
        for who, process in self.processes.items():
            if not process.alive:
                values |= {f"proc.{who}.{key}": value for key, value in process.remains.items()}
                for label, mapping in process.mappings.items():
                    nothing = procfs.unmapped_pages(mapping.start, mapping.end)
                    values |= {f"proc.{who}.map.{label}.{key}": value for key, value in nothing.items()}
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
