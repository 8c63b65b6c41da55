"""What a process does to its address space: mmap, munmap, mremap, mprotect, madvise, brk."""

from typing import Final

from node.counters import Knob, Request
from node.errno import Errno
from node.hw.paging import PagingMode
from node.pagecache.dirty import msync
from node.program.accesses import Pages, access_pages_of
from node.program.run import Mapping, Process, Run, mapping_range
from node.program.text import Command
from node.vm.madvise import Advice, madvise
from node.vm.mlock import MLOCK_ONFAULT, mlock2, munlock
from node.vm.mmap import MapFlag, brk, do_mmap, mmap, munmap
from node.vm.mprotect import mprotect
from node.vm.mremap import MremapFlag, mremap
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE

READ_WRITE: Final = VmFlag.READ | VmFlag.WRITE
RIGHTS: Final = {"rw": READ_WRITE, "ro": VmFlag.READ, "none": 0}
MAP_FLAGS: Final = {
    "shared": MapFlag.SHARED,
    "populate": MapFlag.POPULATE,
    "locked": MapFlag.LOCKED,
    "noreserve": MapFlag.NORESERVE,
}


def _check_address(run: Run, command: Command, process: Process, length: int) -> None:
    """Refuse an ``at=`` that is none, or where something is."""
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


def _request_of(run: Run, command: Command, process: Process, length: int) -> None:
    """Fill in what ``do_mmap`` is to do."""
    words = command.words[2:]
    asked = 0
    for word in words:
        asked |= MAP_FLAGS.get(word, 0)
    rights = next((RIGHTS[word] for word in words if word in RIGHTS), READ_WRITE)
    if "at" in command.options:
        _check_address(run, command, process, length)
        asked |= MapFlag.FIXED_NOREPLACE
    inode = 0
    if "file" in command.options:
        inode = run.inode(command, command.options["file"])
    request = run.state.request
    request[Request.A0] = command.number("at", 0)
    request[Request.A1] = length
    request[Request.A2] = rights
    request[Request.A3] = asked
    request[Request.A4] = inode
    request[Request.A5] = command.number("off", 0) >> PAGE_SHIFT
    request[Request.A6] = command.number("align", PAGE_SIZE)


def _mmap(run: Run, command: Command, process: Process) -> None:
    size = command.parse(command.word(1, "a size"))
    length = -(-size // PAGE_SIZE) * PAGE_SIZE
    if run.state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        start = _mmap_without_paging(run, command, process, length)
    else:
        _request_of(run, command, process, length)
        start = do_mmap(run.state, process.mm)
    if start < 0:
        raise command.fail(f"mmap of {size} bytes failed{_because(start)}")
    process.mappings[command.words[0]] = Mapping(start, start + length)


def _mmap_without_paging(run: Run, command: Command, process: Process, length: int) -> int:
    if "at" in command.options:
        _check_address(run, command, process, length)
    start = mmap(run.state, process.mm, length, READ_WRITE)
    if start != NIL and "populate" in command.words:
        access_pages_of(run, command, process, Pages(start, length >> PAGE_SHIFT), write=True)
    return start


def _because(error: int) -> str:
    """Return the name of an error that a kernel returned, as the end of a sentence."""
    return f": {Errno(error).name}" if error in set(Errno) else ""


def _mlock(run: Run, command: Command, process: Process) -> None:
    _, _, start, end = mapping_range(command, process)
    if command.verb == "munlock":
        error = munlock(run.state, process.mm, start, end)
    else:
        how = MLOCK_ONFAULT if command.verb == "mlockonfault" else 0
        error = mlock2(run.state, process.mm, start, end, how)
    if error and not run.state.mm[process.mm].oom_victim:
        raise command.fail(f"{command.verb} failed{_because(error)}")


def _brkgrow(run: Run, command: Command, process: Process) -> None:
    size = command.parse(command.word(1, "a size"))
    start = int(run.state.mm[process.mm].brk)
    if brk(run.state, process.mm, start + size) != start + size:
        raise command.fail(f"brk by {size} bytes failed")
    name = command.words[0]
    if name in process.mappings and process.mappings[name].end == start:
        start = process.mappings[name].start  # the heap that the name stands for has grown
    process.mappings[name] = Mapping(start, int(run.state.mm[process.mm].brk))


def _brkshrink(run: Run, command: Command, process: Process) -> None:
    size = command.parse(command.word(1, "a size"))
    name, mapping, _, end = mapping_range(command, process)
    brk_end = int(run.state.mm[process.mm].brk)
    if end != brk_end or size >= end - mapping.start:
        raise command.fail(
            f"brkshrink {name}: expected the end of the heap, and less than all that goes by that name"
        )
    if brk(run.state, process.mm, end - size) != end - size:
        raise command.fail(f"brk by -{size} bytes failed")
    process.mappings[name] = Mapping(mapping.start, end - size)


def _munmap(run: Run, command: Command, process: Process) -> None:
    name, mapping, start, end = mapping_range(command, process)
    error = munmap(run.state, process.mm, start, end)
    if error < 0:
        raise command.fail(f"munmap failed{_because(error)}")
    if (start, end) == (mapping.start, mapping.end):
        del process.mappings[name]


def _mremap(run: Run, command: Command, process: Process) -> None:
    name, _, start, end = mapping_range(command, process)
    size = command.parse(command.word(1, "a size"))
    length = -(-size // PAGE_SIZE) * PAGE_SIZE
    if run.state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        raise command.fail(f"mremap {name}: without paging a mapping lies where its memory is")
    request = run.state.request
    request[Request.A0] = start
    request[Request.A1] = end - start
    request[Request.A2] = length
    request[Request.A3] = MremapFlag.MAYMOVE
    request[Request.A4] = 0
    start = mremap(run.state, process.mm)
    if start < 0:
        raise command.fail(f"mremap of {name} to {size} bytes failed{_because(start)}")
    process.mappings[name] = Mapping(start, start + length)


def _mprotect(run: Run, command: Command, process: Process) -> None:
    _, _, start, end = mapping_range(command, process)
    error = mprotect(run.state, process.mm, start, end, RIGHTS[command.word(1, "rights")])
    if error:
        raise command.fail(f"mprotect failed{_because(error)}")


def _msync(run: Run, command: Command, process: Process) -> None:
    _, _, start, end = mapping_range(command, process)
    error = msync(run.state, process.mm, start, end)
    if error:
        raise command.fail(f"msync failed{_because(error)}")


def _madvise(run: Run, command: Command, process: Process) -> None:
    advice = Advice[command.word(1, "an advice").upper()]
    _, _, start, end = mapping_range(command, process)
    stride = command.number("stride", end - start)
    size = command.number("size", min(stride, PAGE_SIZE) if "stride" in command.options else stride)
    for at in range(start, end, stride):
        error = madvise(run.state, process.mm, at, min(at + size, end), advice)
        if error:
            raise command.fail(f"madvise {advice.name.lower()} failed{_because(error)}")


AREA_COMMANDS = {
    "mmap": _mmap,
    "mlock": _mlock,
    "mlockonfault": _mlock,
    "munlock": _mlock,
    "munmap": _munmap,
    "mprotect": _mprotect,
    "mremap": _mremap,
    "msync": _msync,
    "brk": _brkgrow,
    "brkgrow": _brkgrow,
    "brkshrink": _brkshrink,
    "madvise": _madvise,
}
