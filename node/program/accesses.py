"""What a process does with its memory: read, write and fill pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from node.counters import Request
from node.fault.kernel_fault import copy_from_user, copy_to_user
from node.program.run import Process, Run, mapping_range
from node.program.text import MAX_WORD64, Command
from node.touch import Fill, access_pages, access_random_pages, fill_pages
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from shared.wrap64 import to_signed

SLICE_PAGES: Final = 16  # of a command in the background, before another process may go on
REPEATED_BYTE: Final = 0x0101010101010101


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages to access, one after another."""

    vaddr: int
    nr_pages: int
    stride: int = PAGE_SIZE


def check_done(run: Run, command: Command, process: Process, done: bool) -> None:
    """Raise ``ProgramError`` for accesses that the kernel refused; but not if its OOM killer chose the process."""
    if not done and not run.state.mm[process.mm].oom_victim:
        raise command.fail(f"{command.process} was killed: no area, no right or no memory")


def access_pages_of(run: Run, command: Command, process: Process, pages: Pages, *, write: bool) -> None:
    """Read or write one byte of each page. Raises ``ProgramError`` if the process does not survive it."""
    nr_pages = pages.nr_pages
    run.request(pages.vaddr, nr_pages, stride=pages.stride, write=write, value=command.number("val", 1))
    check_done(run, command, process, access_pages(run.state, process.mm) == nr_pages)


def access_steps(run: Run, command: Command, process: Process) -> Iterator[None]:
    """Read or write what the command says, slice by slice."""
    write = command.verb == "write"
    flags = set(command.words[1:])
    if unknown := flags - {"rand", "back"}:
        raise command.fail(f"{command.verb} {unknown.pop()} is not understood")
    _, _, start, end = mapping_range(command, process)
    if "rand" in flags:
        count = command.number("count")
        run.request(start, (end - start) >> PAGE_SHIFT, write=write, value=command.number("val", 1))
        seed = to_signed(command.number("seed", maximum=MAX_WORD64))
        check_done(run, command, process, access_random_pages(run.state, process.mm, count, seed) == count)
        return
    stride = command.number("stride", PAGE_SIZE)
    nr_pages = -(-(end - start) // stride)
    first, step = (start + (nr_pages - 1) * stride, -stride) if "back" in flags else (start, stride)
    slice_pages = SLICE_PAGES if command.background else nr_pages
    for _ in range(command.number("loops", 1)):
        for done in range(0, nr_pages, max(slice_pages, 1)):
            if run.state.mm[process.mm].oom_victim:
                return
            pages = Pages(first + done * step, min(slice_pages, nr_pages - done), step)
            access_pages_of(run, command, process, pages, write=write)
            yield


def _read_or_write(run: Run, command: Command, process: Process) -> None:
    for _ in access_steps(run, command, process):
        pass


def _try(run: Run, command: Command, process: Process) -> None:
    """Access pages that may be refused: the process has a handler for SIGSEGV, and goes on with the next page."""
    write = command.word(1, "read or write") == "write"
    _, _, start, end = mapping_range(command, process)
    for vaddr in range(start, end, PAGE_SIZE):
        run.request(vaddr, 1, write=write, value=1)
        access_pages(run.state, process.mm)


def _copy(run: Run, command: Command, process: Process) -> None:
    """Let a system call copy into the process's memory, or out of it, as far as it gets."""
    _, _, start, end = mapping_range(command, process)
    run.state.request[Request.A0] = 1
    copy = copy_to_user if command.verb == "copyto" else copy_from_user
    copy(run.state, process.mm, start, end - start)


def _fill(run: Run, command: Command, process: Process) -> None:
    _, mapping, start, end = mapping_range(command, process)
    pattern, *arguments = command.word(1, "a pattern").split(":")
    values = [to_signed(command.parse(text, MAX_WORD64)) for text in arguments]
    kind, seed, step, repeat = _pattern(command, pattern, values)
    run.request(start, (end - start) >> PAGE_SHIFT)
    run.state.request[Request.A5] = seed
    run.state.request[Request.A6] = step
    run.state.request[Request.A7] = repeat
    nr_pages = (end - start) >> PAGE_SHIFT
    done = fill_pages(run.state, process.mm, kind, (start - mapping.start) >> PAGE_SHIFT)
    check_done(run, command, process, done == nr_pages)


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


SLICED = {"read": access_steps, "write": access_steps}
ACCESS_COMMANDS = {
    "read": _read_or_write,
    "write": _read_or_write,
    "fill": _fill,
    "try": _try,
    "copyto": _copy,
    "copyfrom": _copy,
}
