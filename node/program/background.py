"""Commands in the background: ``A&: write h`` begins, and goes on beside those of other processes until ``wait A``.

Each process has a CPU, handed out in turn. While several work, the one whose clock is furthest behind does its next
slice, so how they mix is a function of the program alone. A command that is not divided is one slice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from node.counters import Current
from node.program.run import Process, Run
from node.program.text import Command


@dataclass(slots=True)
class Task:
    """A command under way."""

    process: Process
    steps: Iterator[None]
    clock_ps: int


class Background:
    """The commands that are under way, by the names of their processes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tasks: dict[str, Task] = {}

    def start(self, command: Command, process: Process, steps: Iterator[None]) -> None:
        """Let a command begin. Raises ``ProgramError`` if its process has one under way."""
        self.refuse_busy(command)
        clock_ps = int(self.run.state.current[Current.CLOCK_PS])
        self.tasks[command.process] = Task(process, steps, clock_ps)

    def refuse_busy(self, command: Command) -> None:
        """Raise ``ProgramError`` if the command's process has another under way."""
        if command.process in self.tasks:
            raise command.fail(
                f"{command.process} is still at work: expected 'wait {command.process}' before its next command"
            )

    def wait(self, name: str) -> None:
        """Let all that is under way go on until the command of process ``name`` is done."""
        current = self.run.state.current
        cpu = int(current[Current.CPU])
        clock_ps = int(current[Current.CLOCK_PS])
        while name in self.tasks:
            which = min(self.tasks, key=lambda other: self.tasks[other].clock_ps)
            task = self.tasks[which]
            current[Current.CPU] = task.process.cpu
            current[Current.CLOCK_PS] = task.clock_ps
            self.run.become(task.process.mm)
            if next(task.steps, True):
                del self.tasks[which]
            task.clock_ps = int(current[Current.CLOCK_PS])
            clock_ps = max(clock_ps, task.clock_ps)
        current[Current.CPU] = cpu
        current[Current.CLOCK_PS] = clock_ps

    def finish(self) -> None:
        """Let all that is under way come to its end: the program has."""
        for name in list(self.tasks):
            self.wait(name)
