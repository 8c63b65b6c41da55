"""What a process does to its address space: mmap, munmap, madvise, brk."""

from node.counters import Knob
from node.hw.paging import PagingMode
from node.program.accesses import Pages, access_pages_of
from node.program.run import Mapping, NotModelled, Process, Run, mapping_range, only
from node.program.text import Command
from node.vm.madvise import madvise_mergeable, madvise_unmergeable
from node.vm.mmap import brk, mmap, mmap_fixed, munmap
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE


def _mmap_at(run: Run, command: Command, process: Process, length: int) -> int:
    """Map ``length`` bytes where ``at=`` says, and over nothing (MAP_FIXED_NOREPLACE); return the address, or NIL."""
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


def _mmap(run: Run, command: Command, process: Process) -> None:
    only(command, "populate", "at")
    size = command.parse(command.word(1, "a size"))
    length = -(-size // PAGE_SIZE) * PAGE_SIZE
    start = NIL
    if "at" in command.options:
        start = _mmap_at(run, command, process, length)
    elif length:
        start = mmap(run.state, process.mm, length, VmFlag.READ | VmFlag.WRITE)
    if start == NIL:
        raise command.fail(f"mmap of {size} bytes failed")
    process.mappings[command.words[0]] = Mapping(start, start + length)
    if "populate" in command.words:
        access_pages_of(run, command, process, Pages(start, length >> PAGE_SHIFT), write=True)


def _brkgrow(run: Run, command: Command, process: Process) -> None:
    size = command.parse(command.word(1, "a size"))
    start = int(run.state.mm[process.mm].brk)
    if brk(run.state, process.mm, start + size) != start + size:
        raise command.fail(f"brk by {size} bytes failed")
    process.mappings[command.words[0]] = Mapping(start, start + size)


def _munmap(run: Run, command: Command, process: Process) -> None:
    only(command, "off", "len")
    name, mapping, start, end = mapping_range(command, process)
    if munmap(run.state, process.mm, start, end) < 0:
        raise command.fail("munmap failed: too many areas")
    if (start, end) == (mapping.start, mapping.end):
        del process.mappings[name]


def _madvise(run: Run, command: Command, process: Process) -> None:
    advice = command.word(1, "an advice")
    advise = {"mergeable": madvise_mergeable, "unmergeable": madvise_unmergeable}.get(advice)
    if advise is None:
        raise NotModelled([f"madvise {advice}"], f"line {command.line}: ")
    only(command, "off", "len")
    _, _, start, end = mapping_range(command, process)
    if advise(run.state, process.mm, start, end) < 0:
        raise command.fail(f"madvise {advice} failed")


AREA_COMMANDS = {
    "mmap": _mmap,
    "munmap": _munmap,
    "brkgrow": _brkgrow,
    "madvise": _madvise,
}
