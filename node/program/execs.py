"""What a process does with its stack, and with programs that it starts.

A process of a program has a stack from its first use on, of which 96 KiB are touched already, as the driver of the
recordings has done before the first command (CASES.md). ``stack`` touches it from its top down.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.elf import PF_R, PF_W, PF_X, ElfImage, Segment
from node.joints import exit_mmap, put_inode
from node.program.accesses import Pages, access_pages_of
from node.program.run import Process, Run
from node.program.text import Command
from node.touch import access_pages, touch_anew
from node.vm.exec import ExecError, Executable, exec_mm, install, set_up_stack
from shared.constants import KIB, NIL, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

TOUCHED_BYTES: Final = 96 * KIB  # of a stack, by the driver of the recordings (CASES.md)
# A program that does nothing: a page of text, and a page of data with a bss that shares it.
# Differs from Linux: /bin/true of the recordings is larger, and its faults more.
TRIVIAL: Final = ElfImage(
    (
        Segment(0x400000, PAGE_SIZE, PAGE_SIZE, 0, PF_R | PF_X),
        Segment(0x401000, PAGE_SIZE, PAGE_SIZE // 2, PAGE_SIZE, PF_R | PF_W),
    ),
    entry=0x400000,
)


def _has_stack(state: "State", mm_index: int) -> bool:
    """Return whether an area lies at the end of user space."""
    top = int(state.knob[Knob.TASK_SIZE])
    index = state.mm[mm_index].first_vma
    while index != NIL:
        if state.vma[index].end == top:
            return True
        index = state.vma[index].next
    return False


def _stack(run: Run, command: Command, process: Process) -> None:
    size = command.parse(command.word(0, "a size"))
    top = int(run.state.knob[Knob.TASK_SIZE])
    if not _has_stack(run.state, process.mm):
        try:
            set_up_stack(run.state, process.mm)
        except ExecError as error:
            raise command.fail(str(error)) from None
        touch_anew(run.state, process.mm, top - TOUCHED_BYTES, TOUCHED_BYTES >> PAGE_SHIFT)
    access_pages_of(
        run, command, process, Pages(top - PAGE_SIZE, -(-size // PAGE_SIZE), -PAGE_SIZE), write=True
    )


def _run_program(run: Run, process: Process, program: Executable) -> None:
    """Start a program in a child that shares the process's memory until then (vfork), and let it end."""
    child = exec_mm(run.state, process.mm, program, is_shared=True)
    run.become(child)
    run.request(program.image.entry, 1)
    access_pages(run.state, child)
    run.become(process.mm)
    exit_mmap(run.state, child)


def _vfork_exec(run: Run, command: Command, process: Process) -> None:
    run.harness.before_program()
    try:
        program = install(run.state, TRIVIAL, key=0)
        _run_program(run, process, program)
    except ExecError as error:
        raise command.fail(str(error)) from None
    put_inode(run.state, program.inode)
    run.harness.after_program(process.mm)


EXEC_COMMANDS = {
    "stack": _stack,
    "vfork_exec": _vfork_exec,
}
