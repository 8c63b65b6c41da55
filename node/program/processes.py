"""Processes that come and go: fork and exit."""

from node.joints import exit_mmap
from node.program.run import Process, Run
from node.program.text import Command
from node.vm.fork import fork_mm
from shared.constants import NIL


def _fork(run: Run, command: Command, process: Process) -> None:
    name = command.word(0, "a name")
    child = fork_mm(run.state, process.mm)
    if child == NIL and run.state.mm[process.mm].oom_victim:
        return
    if child == NIL:
        raise command.fail("fork failed: no memory")
    run.add(name, Process(child, dict(process.mappings)))
    run.harness.forked(process.mm, child)


def _exit(run: Run, command: Command, process: Process) -> None:
    exit_mmap(run.state, process.mm)
    run.harness.exited(process.mm)
    del run.processes[command.process]


PROCESS_COMMANDS = {
    "fork": _fork,
    "exit": _exit,
}
