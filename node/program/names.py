"""Names in a workload program: that every process, mapping, open file and cgroup is there when it is named.

What a name stands for follows from the text alone, but for processes that the OOM killer ends: a program may go on
naming those. So a name that is wrong is found before anything runs.

    spawn A                {A: {}}
    A: mmap h 4M           {A: {h}}
    A: fork C              {A: {h}, C: {h}}
    A: munmap h            {A: {}, C: {h}}
    A: read h              line 5: A has no mapping h

A name that is given again stands for the newer mapping; the older one stays where it is, without a name.
"""

from dataclasses import dataclass, field

from node.program.text import Command, Text, commands, read_text
from node.program.words import check_words, shape_of


def check_text(text: str) -> Text:
    """Read a program and check all that its text says. Raises ``ProgramError``, in one line, for the first error."""
    program = read_text(text)
    names = Names()
    for command in commands(program):
        check_words(command)
        names.check(command)
    return program


@dataclass(slots=True)
class NamesOf:
    """What a process has that goes by a name."""

    mappings: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)


class Names:
    """The names at one point of a program. Its commands are shown in the order in which they run."""

    def __init__(self) -> None:
        self.processes: dict[str, NamesOf] = {}
        self.groups: set[str] = set()

    def check(self, command: Command) -> None:
        """Note what a command names anew. Raises ``ProgramError`` if it names what is not there."""
        if command.process:
            self._check_process(command, self._process(command, command.process))
        elif command.verb == "spawn":
            group = command.options.get("cg", "")
            if group and group not in self.groups:
                raise command.fail(f"there is no cgroup {group}")
            self._add(command, command.words[0], NamesOf())
        elif command.verb == "cgroup":
            self.groups.add(command.words[0])
        elif command.verb == "kill":
            self._process(command, command.words[0])
            del self.processes[command.words[0]]
        elif command.verb == "wait":
            self._process(command, command.words[0])

    def _process(self, command: Command, name: str) -> NamesOf:
        if name not in self.processes:
            raise command.fail(f"there is no process {name}")
        return self.processes[name]

    def _add(self, command: Command, name: str, names: NamesOf) -> None:
        if name in self.processes:
            raise command.fail(f"there is a process {name} already")
        self.processes[name] = names

    def _check_process(self, command: Command, own: NamesOf) -> None:
        for kind, name in zip(shape_of(command).words, command.words, strict=False):
            if kind == "MAPPING" and name not in own.mappings:
                raise command.fail(f"{command.process} has no mapping {name}")
            if kind == "HANDLE" and name not in own.files:
                raise command.fail(f"{command.process} has no open file {name}")
            if kind == "NEW":
                (own.files if command.verb == "fopen" else own.mappings).add(name)
        match command.verb:
            case "munmap" if not command.options:
                own.mappings.remove(command.words[0])
            case "fclose":
                own.files.remove(command.words[0])
            case "fork":
                self._add(command, command.words[0], NamesOf(set(own.mappings), set(own.files)))
            case "exit":
                del self.processes[command.process]
