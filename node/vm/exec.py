"""exec: a new address space for a program, laid out as its ELF file says.

    0x400000  text, data | bss | heap ->        <- interpreter, mappings       <- stack  0x7ffffffff000
    (or from 0x555555554000 on, if it may lie anywhere)

    stack       argument pages at the top are written; 128 KiB below belong to the area from the start
    segments    private mappings of the file; what a segment has beyond the file's bytes is anonymous memory (bss)
    last page   of data that bss shares is written, to clear its rest (padzero): one copy at once
    heap        begins behind bss, with nothing

The old address space goes once the new one has its stack. One that was shared, as after vfork, stays.

Linux: fs/exec.c (bprm_mm_init, setup_arg_pages, exec_mmap), fs/binfmt_elf.c (load_elf_binary, load_elf_interp,
elf_map, set_brk, padzero), arch/x86/mm/mmap.c (mmap_base), arch/x86/include/asm/elf.h (ELF_ET_DYN_BASE).
# Differs from Linux: a program without room leaves the old address space as it was, where Linux kills the process;
addresses as without randomisation; no vdso; what padzero clears is not seen in the page's content.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, Request
from node.elf import PF_R, PF_W, PF_X, ElfImage, Segment, check_image
from node.hw.paging import AccessKind, PagingMode
from node.joints import exit_mmap, handle_mm_fault, new_file
from node.vm.mm_init import STACK_GAP_BYTES, new_mm
from node.vm.mmap import MapFlag, do_mmap, munmap
from node.vm.vma import VmFlag
from shared.constants import KIB, NIL, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

DYN_BASE: Final = 0x555555554000  # ELF_ET_DYN_BASE: two thirds of user space
STACK_EXPAND_BYTES: Final = 128 * KIB  # stack_expand
STACK_SHARE: Final = 5, 6  # MAX_GAP: of user space that may be kept for the stack
_INHERITED: Final = (
    "stack_limit",
    "as_limit",
    "data_limit",
    "memlock_limit",
    "oom_score_adj",
)
_COUNTED: Final = ("minflt", "majflt")  # by the task, which goes on unless it is a new one of vfork
_FLAGS: Final = ((PF_R, VmFlag.READ), (PF_W, VmFlag.WRITE), (PF_X, VmFlag.EXEC))


class ExecError(Exception):
    """A program that cannot be started: no memory, or no room. The new address space is gone again."""


@dataclass(frozen=True, slots=True)
class Executable:
    """An ELF file of a machine: its headers, and the inode whose pages are mapped."""

    image: ElfImage
    inode: int
    interpreter: "Executable | None" = None


def install(state: "State", image: ElfImage, key: int, interpreter: Executable | None = None) -> Executable:
    """Return an executable of a machine, whose contents ``key`` seeds. Raises ``ElfError``, or ``ExecError``."""
    check_image(image, "image")
    inode = new_file(state, -(-image.file_bytes // PAGE_SIZE), key)
    if inode == NIL:
        raise ExecError("no inode is left")
    return Executable(image, inode, interpreter)


def exec_mm(state: "State", mm_index: int, program: Executable, *, is_shared: bool = False) -> int:
    """Start a program in a new address space and return that; the old one ends unless another process shares it."""
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        raise ExecError("without paging there is no address space to lay a program out in")
    new = new_mm(state)
    if new == NIL:
        raise ExecError("no memory for an address space")
    for name in _INHERITED if is_shared else _INHERITED + _COUNTED:
        setattr(state.mm[new], name, int(getattr(state.mm[mm_index], name)))
    before = int(state.current[Current.MM])
    state.current[Current.MM] = new  # the faults of the set-up are the new program's
    try:
        set_up_stack(state, new)
        _load(state, new, program)
    except ExecError:
        exit_mmap(state, new)
        raise
    finally:
        state.current[Current.MM] = before
    if not is_shared:
        exit_mmap(state, mm_index)
    return new


def _map(
    state: "State", mm_index: int, place: tuple[int, int], vm_flags: int, file: tuple[int, int] = (0, 0)
) -> int:
    """Map ``place``, an address (0: anywhere) and bytes, of ``file``, an inode and a page; return the address."""
    map_flags = MapFlag.FIXED if place[0] else 0
    if vm_flags & VmFlag.GROWSDOWN:
        map_flags |= MapFlag.GROWSDOWN
    for number, value in enumerate((*place, vm_flags & ~VmFlag.GROWSDOWN, map_flags, *file, 0)):
        state.request[Request.A0 + number] = value
    start = int(do_mmap(state, mm_index))
    if start < 0:
        raise ExecError(f"no room for {place[1]} bytes of the program at {place[0]:#x}")
    return start


def _write(state: "State", mm_index: int, vaddr: int) -> None:
    if handle_mm_fault(state, mm_index, vaddr, AccessKind.WRITE):
        raise ExecError("no memory for a page of the program")


# --- stack ----------------------------------------------------------------------------------------------


def set_up_stack(state: "State", mm_index: int) -> None:
    """Make the stack, write its page of arguments, and lay mappings below the room that it may come to need.

    Raises ``ExecError`` without memory or room.
    """
    mm = state.mm[mm_index]
    top = int(state.knob[Knob.TASK_SIZE])
    limit = int(mm.stack_limit)
    size = min(PAGE_SIZE + STACK_EXPAND_BYTES, max(limit // PAGE_SIZE * PAGE_SIZE, PAGE_SIZE))
    vm_flags = VmFlag.READ | VmFlag.WRITE | VmFlag.GROWSDOWN
    _map(state, mm_index, (top - size, size), vm_flags)
    _write(state, mm_index, top - PAGE_SIZE)
    mm.start_stack = top - PAGE_SIZE
    guard = int(state.knob[Knob.STACK_GUARD_PAGES]) << PAGE_SHIFT
    gap = min(max(limit + guard, STACK_GAP_BYTES), top // STACK_SHARE[1] * STACK_SHARE[0])
    mm.mmap_top = -(-(top - gap) // PAGE_SIZE) * PAGE_SIZE


# --- segments -------------------------------------------------------------------------------------------


def _down(vaddr: int) -> int:
    return vaddr // PAGE_SIZE * PAGE_SIZE


def _up(vaddr: int) -> int:
    return -(-vaddr // PAGE_SIZE) * PAGE_SIZE


def _vm_flags(segment: Segment) -> int:
    return sum(flag for bit, flag in _FLAGS if segment.flags & bit)


def _load(state: "State", mm_index: int, program: Executable) -> None:
    """Map a program and its interpreter, and note where code, data and heap are."""
    image = program.image
    if not image.is_relocatable:
        bias = 0
    elif program.interpreter is not None:
        bias = DYN_BASE - image.span[0]
    else:
        bias = _bias_of(state, mm_index, program)  # as ld.so itself
    end = _map_segments(state, mm_index, program, bias)
    mm = state.mm[mm_index]
    code = [segment for segment in image.segments if segment.flags & PF_X] or image.segments[:1]
    mm.start_code = min(segment.vaddr for segment in code) + bias
    mm.end_code = max(segment.vaddr + segment.filesz for segment in code) + bias
    mm.start_data = max(segment.vaddr for segment in image.segments) + bias
    mm.end_data = max(segment.vaddr + segment.filesz for segment in image.segments) + bias
    mm.brk_start = end
    mm.brk = end
    if program.interpreter is not None:
        loader = program.interpreter
        _map_segments(state, mm_index, loader, _bias_of(state, mm_index, loader))


def _bias_of(state: "State", mm_index: int, program: Executable) -> int:
    """Return how far from its own addresses a program that may lie anywhere comes to lie: in the highest gap."""
    first, behind = program.image.span
    size = _up(behind) - first
    start = _map(state, mm_index, (0, size), VmFlag.READ, (program.inode, 0))
    munmap(state, mm_index, start, start + size)
    return start - first


def _map_segments(state: "State", mm_index: int, program: Executable, bias: int) -> int:
    """Map all segments and the bss behind the last; return the first page behind."""
    behind = 0
    for segment in program.image.segments:
        vaddr = segment.vaddr + bias
        if segment.filesz:
            size = _up(vaddr + segment.filesz) - _down(vaddr)
            file = program.inode, segment.offset >> PAGE_SHIFT
            _map(state, mm_index, (_down(vaddr), size), _vm_flags(segment), file)
        behind = vaddr + segment.memsz
        if segment.memsz > segment.filesz:
            _map_bss(state, mm_index, (vaddr + segment.filesz, behind), _vm_flags(segment))
    return _up(behind)


def _map_bss(state: "State", mm_index: int, place: tuple[int, int], vm_flags: int) -> None:
    """Give a segment the memory that the file has no bytes for; what of the file's last page is behind is cleared."""
    start, end = place
    if _up(end) > _up(start):
        _map(state, mm_index, (_up(start), _up(end) - _up(start)), vm_flags)
    if start % PAGE_SIZE and vm_flags & VmFlag.WRITE:
        _write(state, mm_index, start)
