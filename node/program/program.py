"""Workload programs: the line-based language in which a simulated machine and a real one run the same thing.

    spawn A                     A: mmap h 8M                 ksm_scan 2
    A: fork C                   A: madvise h mergeable       snapshot merged
                                A: fill h uniq:4

A *controller* line names no process and acts on the machine; ``A: COMMAND`` is done by process A, one line at
a time. ``snapshot NAME`` notes every counter. The whole language is in node/program/words.py; the commands modelled so
far are those in ``CONTROLLER`` and ``PROCESS`` below, and others are a ``NotModelled`` error that names them.
"""

from collections.abc import Callable, Collection, Container, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from node.golden_harness import GoldenHarness, Recorded
from node.program.accesses import ACCESS_COMMANDS, SLICED
from node.program.areas import AREA_COMMANDS
from node.program.background import Background
from node.program.controller import CONTROLLER
from node.program.execs import EXEC_COMMANDS
from node.program.names import check_text
from node.program.processes import PROCESS_COMMANDS
from node.program.room import check_room
from node.program.run import NotModelled, PlainDriver, Process, ProgramResult, Run
from node.program.text import Command, ProgramError, Text, commands
from node.program.words import unmodelled, without

if TYPE_CHECKING:
    from node.state import State

WAIT: Final = "wait"
PROCESS: Final[dict[str, Callable[[Run, Command, Process], None]]] = {
    **AREA_COMMANDS,
    **ACCESS_COMMANDS,
    **PROCESS_COMMANDS,
    **EXEC_COMMANDS,
}


class Program:
    """A parsed program. Raises ``ProgramError`` if the text is wrong, before anything of it runs.

    It ends behind the snapshot ``up_to``, if one is named. What is not modelled and matches one of the patterns
    ``pass_over`` is left out, a word or the whole command; ``skipped`` has the names. ``NotModelled`` has the rest.
    """

    def __init__(self, text: str, *, pass_over: Collection[str] = (), up_to: str = "") -> None:
        self.text: Text = check_text(text)
        self.up_to = up_to
        skipped: dict[str, None] = {}
        missing: dict[str, int] = {}  # and the first line
        for command in self._until():
            for name in unmodelled(command, _table(command)):
                if any(fnmatchcase(name, pattern) for pattern in pass_over):
                    skipped[name] = None
                else:
                    missing.setdefault(name, command.line)
        if missing:
            raise NotModelled(missing, f"line {min(missing.values())}: ")
        self.skipped = tuple(skipped)

    def _until(self) -> Iterator[Command]:
        for command in commands(self.text):
            yield command
            if self.up_to and command.verb == "snapshot" and command.words[0] == self.up_to:
                return
        if self.up_to:
            raise ProgramError(f"there is no snapshot {self.up_to}")

    def commands(self) -> Iterator[Command]:
        """Yield what is run, loops unrolled, what is passed over left out."""
        for command in self._until():
            modelled = without(command, _table(command))
            if modelled is not None:
                yield modelled

    def run(
        self,
        state: "State",
        recorded: Recorded | None = None,
    ) -> ProgramResult:
        """Run to the end; return what its snapshots saw.

        ``recorded`` adds what the harness of a recording cost; the machine has then just booted.
        """
        for command in self.commands():
            check_room(state, command)
        run = Run(
            state,
            PlainDriver(state, self.text.files()) if recorded is None else GoldenHarness(state, recorded),
        )
        background = Background(run)
        for command in self.commands():
            _do(run, background, command)
        background.finish()
        run.result.pids = {name: process.mm for name, process in run.processes.items() if process.alive}
        run.result.paths = {inode: path for path, inode in run.inodes.items()}
        return run.result


def _table(command: Command) -> Container[str]:
    return PROCESS if command.process else {*CONTROLLER, WAIT}


def _steps(run: Run, command: Command, process: Process) -> Iterator[None]:
    """Return a process's command as slices of work."""
    run.harness.before_command(process.mm)
    if command.verb in SLICED:
        yield from SLICED[command.verb](run, command, process)
    else:
        PROCESS[command.verb](run, command, process)


def _do(run: Run, background: Background, command: Command) -> None:
    if not command.process:
        if command.verb == WAIT:
            background.wait(command.words[0])
            return
        run.become(run.harness.controller)
        CONTROLLER[command.verb](run, command)
        run.note_deaths(None)
        return
    if run.is_dead(command.process):
        return
    process = run.process(command, command.process)
    background.refuse_busy(command)
    if command.background:
        background.start(command, process, _steps(run, command, process))
        return
    run.become(process.mm)
    run.harness.before_command(process.mm)
    if not run.state.mm[process.mm].oom_victim:
        PROCESS[command.verb](run, command, process)
    run.note_deaths(process)
    run.let_kswapd_run()
