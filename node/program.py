"""Workload programs: the line-based language in which a simulated machine and a real one run the same thing.

    spawn A                     A: mmap h 8M                 ksm_scan 2
    A: fork C                   A: madvise h mergeable       snapshot merged
                                A: fill h uniq:4

A *controller* line names no process and acts on the machine; ``A: COMMAND`` is done by process A, one line at
a time. ``snapshot NAME`` notes every counter. The commands modelled so far are those in ``CONTROLLER`` and
``PROCESS`` below; any other is a ``NotModelled`` error that names it.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from node import procfs
from node.counters import Current, Knob, KsmRun, Request
from node.golden_harness import GoldenHarness, HarnessFigures
from node.golden_layout import RecordedStart, buddy_counters
from node.hw.paging import PagingMode
from node.joints import exit_mmap
from node.ksm.ksmd import ksm_do_scan, ksm_set_run
from node.kthread import run_kthreads
from node.phys.compaction import compact_memory
from node.program_text import Command, ProgramError, Text, commands, read_text
from node.touch import Fill, access_pages, access_random_pages, become, fill_pages
from node.vm.fault_kinds import Access
from node.vm.fork import fork_mm
from node.vm.mmap import brk, madvise_mergeable, madvise_unmergeable, mmap, mmap_fixed, munmap, new_mm
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE, PS_PER_MS
from shared.wrap64 import to_signed

if TYPE_CHECKING:
    from node.state import State

REPEATED_BYTE: Final = 0x0101010101010101
KSM_KNOBS: Final = {
    "pages_to_scan": Knob.KSM_PAGES_TO_SCAN,
    "sleep_millisecs": Knob.KSM_SLEEP_MILLISECS,
    "max_page_sharing": Knob.KSM_MAX_PAGE_SHARING,
    "use_zero_pages": Knob.KSM_USE_ZERO_PAGES,
    "merge_across_nodes": Knob.KSM_MERGE_ACROSS_NODES,
    "stable_node_chains_prune_millisecs": Knob.KSM_PRUNE_MILLISECS,
}
# What the recording's controller sets while it counts scans exactly (the goldens' ksm levels show it).
SCAN_SLEEP_MILLISECS: Final = 500_000
SCAN_ALL_PAGES: Final = 100_000_000


class NotModelled(ProgramError):  # noqa: N818 (it reads as what it says of the program)
    """A command of the language whose mechanism is not modelled yet."""


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


class Program:
    """A parsed program. Raises ``ProgramError`` if the text is wrong where that shows before it runs.

    With ``in_part``, commands that are not modelled are passed over; ``skipped`` has their verbs.
    """

    def __init__(self, text: str, *, in_part: bool = False) -> None:
        self.text: Text = read_text(text)
        self.skipped: list[str] = []
        for command in commands(self.text):
            if command.verb in _table(command):
                continue
            if not in_part:
                raise NotModelled(f"line {command.line}: {command.verb!r} is not modelled yet")
            if command.verb not in self.skipped:
                self.skipped.append(command.verb)

    def run(
        self,
        state: "State",
        *,
        as_recorded: bool = False,
        start: RecordedStart | None = None,
        figures: HarnessFigures | None = None,
    ) -> ProgramResult:
        """Run to the end; return what its snapshots saw.

        ``as_recorded`` adds what the harness cost that recorded the goldens, or ``figures``; the machine has then
        just booted. Its free memory is laid out as ``start`` says, if it is given.
        """
        run = _Run(state, GoldenHarness(state, start, figures) if as_recorded else PlainDriver(state))
        for command in commands(self.text):
            if command.verb in _table(command):
                run.do(command)
        return run.result


def _table(command: Command) -> Container[str]:
    return PROCESS if command.process else CONTROLLER


class _Run:
    """A program under way."""

    def __init__(self, state: "State", harness: Driver) -> None:
        self.state = state
        self.harness = harness
        self.processes: dict[str, Process] = {}
        self.result = ProgramResult()
        self.snapshot("boot")

    def do(self, command: Command) -> None:
        if command.process:
            process = self.process(command, command.process)
            self.become(process.mm)
            self.harness.before_command(process.mm)
            PROCESS[command.verb](self, command, process)
        else:
            self.become(self.harness.controller)
            CONTROLLER[command.verb](self, command)

    def become(self, mm_index: int) -> None:
        become(self.state, mm_index)

    def process(self, command: Command, name: str) -> Process:
        process = self.processes.get(name)
        if process is None or not process.alive:
            raise command.fail(f"there is no process {name}")
        return process

    def snapshot(self, name: str) -> None:
        values = {f"vmstat.{key}": value for key, value in procfs.vmstat(self.state).items()}
        values |= {f"ksm.{key}": value for key, value in procfs.ksm(self.state).items()}
        values |= buddy_counters(self.state)
        for who, process in self.processes.items():
            if not process.alive:
                continue
            own = procfs.process(self.state, process.mm)
            values |= {f"proc.{who}.{key}": value for key, value in own.items()}
            for label, mapping in process.mappings.items():
                pages = procfs.mapping_pages(self.state, process.mm, mapping.start, mapping.end)
                values |= {f"proc.{who}.map.{label}.{key}": value for key, value in pages.items()}
        self.result.snapshots.append((name, values))

    def request(
        self, vaddr: int, nr_pages: int, *, stride: int = PAGE_SIZE, write: bool = False, value: int = 0
    ) -> None:
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


# --- the controller's commands --------------------------------------------------------------------------


def _spawn(run: _Run, command: Command) -> None:
    name = command.word(0, "a name")
    if name in run.processes and run.processes[name].alive:
        raise command.fail(f"there is a process {name} already")
    mm_index = run.harness.spawn()
    if mm_index == NIL:
        raise command.fail("spawn failed: no memory")
    run.processes[name] = Process(mm_index)


def _snapshot(run: _Run, command: Command) -> None:
    run.snapshot(command.word(0, "a name"))


def _ksm(run: _Run, command: Command) -> None:
    if len(command.words) % 2:
        raise command.fail("ksm needs pairs of a file of /sys/kernel/mm/ksm and a value")
    for knob, text in zip(command.words[::2], command.words[1::2], strict=True):
        value = command.parse(text)
        if knob == "run":
            if value not in tuple(KsmRun):
                raise command.fail(f"ksm run {value} is not 0, 1 or 2")
            if ksm_set_run(run.state, value) == NIL:
                raise command.fail("no memory to undo all merges")
        elif knob in KSM_KNOBS:
            run.state.knob[KSM_KNOBS[knob]] = value
        else:
            raise command.fail(f"there is no /sys/kernel/mm/ksm/{knob}")


def _scan_batches(run: _Run, nr_batches: int, nr_pages: int) -> None:
    run.state.knob[Knob.KSM_PAGES_TO_SCAN] = nr_pages
    run.state.knob[Knob.KSM_SLEEP_MILLISECS] = SCAN_SLEEP_MILLISECS
    ksm_set_run(run.state, KsmRun.MERGE)
    run.state.current[Current.MM] = 0  # ksmd has no process
    for _ in range(nr_batches):
        ksm_do_scan(run.state, nr_pages)
    ksm_set_run(run.state, KsmRun.STOP)


def _ksm_scan(run: _Run, command: Command) -> None:
    _scan_batches(run, command.parse(command.word(0, "a number of full scans")), SCAN_ALL_PAGES)


def _ksm_step(run: _Run, command: Command) -> None:
    nr_batches = command.parse(command.word(0, "a number of batches"))
    _scan_batches(run, nr_batches, command.parse(command.word(1, "a number of pages")))


def _sleep(run: _Run, command: Command) -> None:
    run.pass_time(command.parse(command.word(0, "milliseconds")))


def _compact(run: _Run, command: Command) -> None:
    if command.words:
        raise command.fail("compact takes no arguments")
    compact_memory(run.state)


# --- a process's commands -------------------------------------------------------------------------------


def _range(command: Command, process: Process) -> tuple[str, Mapping, int, int]:
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


def _only(command: Command, *known: str) -> None:
    """Refuse options and words whose mechanism is not modelled."""
    for word in (*command.words[2:], *command.options):
        if word not in known:
            raise NotModelled(f"line {command.line}: {command.verb} {word} is not modelled yet")


def _mmap_at(run: _Run, command: Command, process: Process, length: int) -> int:
    """Map ``length`` bytes where ``at=`` says, and over nothing (MAP_FIXED_NOREPLACE); return the area, or NIL."""
    start = command.number("at")
    end = start + length
    last = int(run.state.knob[Knob.TASK_SIZE])
    if start % PAGE_SIZE:
        raise command.fail(f"at={start:#x} is not a multiple of {PAGE_SIZE}")
    if not 0 <= start < end <= last:
        raise command.fail(
            f"at={start:#x}: {length} bytes from there reach beyond {last:#x}, the end of user space"
        )
    for name, other in process.mappings.items():
        if start < other.end and other.start < end:
            raise command.fail(
                f"at={start:#x}: mapping {name} is there, from {other.start:#x} to {other.end:#x}"
            )
    if run.state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        raise command.fail(f"at={start:#x}: without paging a mapping lies where its memory is")
    return mmap_fixed(run.state, process.mm, start, end)


def _mmap(run: _Run, command: Command, process: Process) -> None:
    _only(command, "populate", "at")
    size = command.parse(command.word(1, "a size"))
    length = -(-size // PAGE_SIZE) * PAGE_SIZE
    vma = NIL
    if "at" in command.options:
        vma = _mmap_at(run, command, process, length)
    elif length:
        vma = mmap(run.state, process.mm, length, VmFlag.READ | VmFlag.WRITE)
    if vma == NIL:
        raise command.fail(f"mmap of {size} bytes failed")
    start = int(run.state.vma[vma].start)
    process.mappings[command.words[0]] = Mapping(start, start + length)
    if "populate" in command.words:
        _access(run, command, process, Pages(start, length >> PAGE_SHIFT), write=True)


def _brkgrow(run: _Run, command: Command, process: Process) -> None:
    size = command.parse(command.word(1, "a size"))
    start = int(run.state.mm[process.mm].brk)
    if brk(run.state, process.mm, start + size) == NIL:
        raise command.fail(f"brk by {size} bytes failed")
    process.mappings[command.words[0]] = Mapping(start, start + size)


def _munmap(run: _Run, command: Command, process: Process) -> None:
    _only(command, "off", "len")
    name, mapping, start, end = _range(command, process)
    if munmap(run.state, process.mm, start, end) == NIL:
        raise command.fail("munmap failed: too many areas")
    if (start, end) == (mapping.start, mapping.end):
        del process.mappings[name]


def _madvise(run: _Run, command: Command, process: Process) -> None:
    advice = command.word(1, "an advice")
    advise = {"mergeable": madvise_mergeable, "unmergeable": madvise_unmergeable}.get(advice)
    if advise is None:
        raise NotModelled(f"line {command.line}: madvise {advice} is not modelled yet")
    _only(command, "off", "len")
    _, _, start, end = _range(command, process)
    if advise(run.state, process.mm, start, end) == NIL:
        raise command.fail(f"madvise {advice} failed")


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages to access, one after another."""

    vaddr: int
    nr_pages: int
    stride: int = PAGE_SIZE


def _access(run: _Run, command: Command, process: Process, pages: Pages, *, write: bool) -> None:
    nr_pages = pages.nr_pages
    run.request(pages.vaddr, nr_pages, stride=pages.stride, write=write, value=command.number("val", 1))
    if access_pages(run.state, process.mm) < nr_pages:
        raise command.fail(f"{command.process} was killed: no area, no right or no memory")


def _read_or_write(run: _Run, command: Command, process: Process) -> None:
    write = command.verb == "write"
    flags = set(command.words[1:])
    if unknown := flags - {"rand", "back"}:
        raise command.fail(f"{command.verb} {unknown.pop()} is not understood")
    _, _, start, end = _range(command, process)
    if "rand" in flags:
        count = command.number("count")
        run.request(start, (end - start) >> PAGE_SHIFT, write=write, value=command.number("val", 1))
        if access_random_pages(run.state, process.mm, count, to_signed(command.number("seed"))) < count:
            raise command.fail(f"{command.process} was killed: no area, no right or no memory")
        return
    stride = command.number("stride", PAGE_SIZE)
    nr_pages = -(-(end - start) // stride)
    for _ in range(command.number("loops", 1)):
        if "back" in flags:
            last = start + (nr_pages - 1) * stride
            _access(run, command, process, Pages(last, nr_pages, -stride), write=write)
        else:
            _access(run, command, process, Pages(start, nr_pages, stride), write=write)


def _fill(run: _Run, command: Command, process: Process) -> None:
    _, mapping, start, end = _range(command, process)
    pattern, *arguments = command.word(1, "a pattern").split(":")
    values = [to_signed(command.parse(text)) for text in arguments]
    kind, seed, step, repeat = _pattern(command, pattern, values)
    run.request(start, (end - start) >> PAGE_SHIFT)
    run.state.request[Request.A5] = seed
    run.state.request[Request.A6] = step
    run.state.request[Request.A7] = repeat
    nr_pages = (end - start) >> PAGE_SHIFT
    if fill_pages(run.state, process.mm, kind, (start - mapping.start) >> PAGE_SHIFT) < nr_pages:
        raise command.fail(f"{command.process} was killed: no area, no right or no memory")


def _pattern(command: Command, pattern: str, values: list[int]) -> tuple[int, int, int, int]:
    """Return a pattern as (Fill, seed or value, step a page, pages before it repeats)."""
    match pattern, values:
        case "zero", []:
            return Fill.SAME, 0, 0, 0
        case "const", [byte] if 0 <= byte < 256:  # noqa: PLR2004 (a byte)
            return Fill.SAME, to_signed(byte * REPEATED_BYTE), 0, 0
        case "same", [value]:
            return Fill.SAME, value, 1, 0
        case "uniq", [seed]:
            return Fill.UNIQUE, seed, 0, 0
        case "mod", [repeat, seed] if repeat > 0:
            return Fill.UNIQUE, seed, 0, repeat
        case "half", [seed]:
            return Fill.HALF, seed, 0, 0
        case "text", [seed]:
            return Fill.TEXT, seed, 0, 0
    raise command.fail(f"{command.words[1]!r} is none of zero const:B uniq:S mod:K:S same:S half:S text:S")


def _fork(run: _Run, command: Command, process: Process) -> None:
    name = command.word(0, "a name")
    child = fork_mm(run.state, process.mm)
    if child == NIL:
        raise command.fail("fork failed: no memory")
    run.processes[name] = Process(child, dict(process.mappings))
    run.harness.forked(process.mm, child)


def _exit(run: _Run, _command: Command, process: Process) -> None:
    exit_mmap(run.state, process.mm)
    process.alive = False


CONTROLLER: Final[dict[str, Callable[[_Run, Command], None]]] = {
    "spawn": _spawn,
    "snapshot": _snapshot,
    "ksm": _ksm,
    "ksm_scan": _ksm_scan,
    "ksm_step": _ksm_step,
    "ksm_wait": _sleep,
    "sleep": _sleep,
    "compact": _compact,
}
PROCESS: Final[dict[str, Callable[[_Run, Command, Process], None]]] = {
    "mmap": _mmap,
    "munmap": _munmap,
    "brkgrow": _brkgrow,
    "madvise": _madvise,
    "read": _read_or_write,
    "write": _read_or_write,
    "fill": _fill,
    "fork": _fork,
    "exit": _exit,
}
