"""exec: where a program's parts come to lie, what is touched, and what goes."""

import pytest

from node.counters import Knob
from node.elf import PF_R, PF_W, PF_X, ElfError, ElfImage, Segment
from node.invariants import check
from node.vm.exec import DYN_BASE, ExecError, Executable, exec_mm, install
from node.vm.mm import Limit, setrlimit
from node.vm.mmap import brk
from node.vm.vma import VmFlag
from shared.constants import MIB, NIL, PAGE_SIZE
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways

TEXT = Segment(0x400000, 0x2100, 0x2100, 0, PF_R | PF_X)
DATA = Segment(0x403100, 0x3000, 0x500, 0x2100, PF_R | PF_W)
STATIC = ElfImage((TEXT, DATA), 0x400100)
STACK_TOP = (1 << 47) - PAGE_SIZE
INITIAL_STACK = 33 * PAGE_SIZE


@pytest.fixture
def machine() -> VmMachine:
    return VmMachine()


def moved(image: ElfImage, interpreter: str = "") -> ElfImage:
    """Return the image as one that may lie anywhere."""
    segments = tuple(
        Segment(each.vaddr - 0x400000, each.memsz, each.filesz, each.offset, each.flags)
        for each in image.segments
    )
    return ElfImage(segments, image.entry - 0x400000, is_relocatable=True, interpreter=interpreter)


def areas(machine: VmMachine, mm: int) -> list[tuple[int, int, int, bool]]:
    """Return start, end, rights and whether it maps a file, of each area."""
    found = []
    index = machine.state.mm[mm].first_vma
    while index != NIL:
        vma = machine.state.vma[index]
        rights = int(vma.vm_flags) & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC)
        found.append((int(vma.start), int(vma.end), rights, bool(vma.inode)))
        index = vma.next
    return found


def run(machine: VmMachine, image: ElfImage = STATIC, interpreter: Executable | None = None) -> int:
    """Return a process that has just started a program."""
    return exec_mm(machine.state, machine.spawn(), install(machine.state, image, 3, interpreter))


def test_text_data_bss_and_stack_lie_where_the_file_says(machine: VmMachine) -> None:
    mm = run(machine)
    assert areas(machine, mm) == [
        (0x400000, 0x403000, VmFlag.READ | VmFlag.EXEC, True),
        (0x403000, 0x404000, READ_WRITE, True),
        (0x404000, 0x407000, READ_WRITE, False),
        (STACK_TOP - INITIAL_STACK, STACK_TOP, READ_WRITE, False),
    ]
    record = machine.state.mm[mm]
    assert (record.brk_start, record.brk) == (0x407000, 0x407000)
    assert (record.start_code, record.end_code) == (0x400000, 0x402100)
    assert (record.start_data, record.end_data) == (0x403100, 0x403600)
    assert (record.stack_vm, record.exec_vm, record.total_vm) == (33, 3, 3 + 1 + 3 + 33)
    check(machine.state)


def test_code_begins_with_the_first_segment_that_may_be_executed(machine: VmMachine) -> None:
    headers = Segment(0x400000, 0x500, 0x500, 0, PF_R)
    text = Segment(0x401000, 0x2100, 0x2100, 0x1000, PF_R | PF_X)
    mm = run(machine, ElfImage((headers, text), 0x401100))
    record = machine.state.mm[mm]
    assert (record.start_code, record.end_code) == (0x401000, 0x403100)
    check(machine.state)


def test_only_the_arguments_and_the_page_that_bss_shares_are_touched(machine: VmMachine) -> None:
    mm = run(machine)
    assert machine.state.mm[mm].nr_anon == 2
    assert machine.frame(mm, STACK_TOP - PAGE_SIZE) != NIL
    assert machine.frame(mm, 0x403000) != NIL
    assert machine.state.mm[mm].nr_file == 0


def test_the_heap_begins_behind_bss(machine: VmMachine) -> None:
    mm = run(machine)
    assert brk(machine.state, mm, 0x407000 + PAGE_SIZE) == 0x407000 + PAGE_SIZE
    assert machine.write(mm, 0x407000, 1) != NIL
    assert areas(machine, mm)[2] == (0x404000, 0x408000, READ_WRITE, False)
    check(machine.state)


def test_what_may_lie_anywhere_lies_at_two_thirds_and_its_interpreter_below_the_mappings(
    machine: VmMachine,
) -> None:
    loader = install(machine.state, moved(STATIC), 4)
    mm = run(machine, moved(STATIC, "/lib64/ld-linux-x86-64.so.2"), loader)
    starts = [start for start, *_ in areas(machine, mm)]
    top = int(machine.state.mm[mm].mmap_top)
    assert starts[:3] == [DYN_BASE, DYN_BASE + 0x3000, DYN_BASE + 0x4000]
    assert starts[3:6] == [top - 0x7000, top - 0x4000, top - 0x3000]
    assert machine.state.mm[mm].brk == DYN_BASE + 0x7000
    check(machine.state)


def test_the_old_address_space_goes_and_its_limits_stay(machine: VmMachine) -> None:
    program = install(machine.state, STATIC, 3)
    old = machine.spawn()
    vaddr = machine.map(old, 8)
    for page in range(8):
        machine.write(old, vaddr + page * PAGE_SIZE, 1)
    setrlimit(machine.state, old, Limit.STACK, 64 * PAGE_SIZE)
    free_before = machine.nr_free()
    new = exec_mm(machine.state, old, program)
    assert machine.nr_free() > free_before
    assert machine.state.mm[new].stack_limit == 64 * PAGE_SIZE
    assert machine.read(new, vaddr) == NIL
    machine.exit(new)
    check(machine.state)


def test_after_vfork_the_parent_keeps_its_address_space(machine: VmMachine) -> None:
    program = install(machine.state, STATIC, 3)
    parent = machine.spawn()
    vaddr = machine.map(parent, 2)
    pfn = machine.write(parent, vaddr, 1)
    child = exec_mm(machine.state, parent, program, is_shared=True)
    assert machine.state.page[pfn].mapcount == 1
    assert machine.write(parent, vaddr, 2) == pfn  # nothing was write-protected
    machine.exit(child)
    check(machine.state)


def test_a_task_keeps_its_count_of_faults_and_those_of_the_new_program_are_its_own(
    machine: VmMachine,
) -> None:
    program = install(machine.state, STATIC, 3)
    parent = machine.spawn()
    machine.write(parent, machine.map(parent, 1), 1)
    before = int(machine.state.mm[parent].minflt)
    child = exec_mm(machine.state, parent, program, is_shared=True)
    for_arguments = int(machine.state.mm[child].minflt)
    assert for_arguments >= 1
    assert machine.state.mm[parent].minflt == before
    new = exec_mm(machine.state, parent, program)
    assert machine.state.mm[new].minflt == before + for_arguments


def test_text_is_shared_by_all_who_run_it(machine: VmMachine) -> None:
    program = install(machine.state, STATIC, 3)
    first, second = (exec_mm(machine.state, machine.spawn(), program) for _ in range(2))
    assert machine.read(first, 0x400000) == machine.read(second, 0x400000)
    check(machine.state)


def test_a_stack_grows_when_it_is_used_until_its_limit(machine: VmMachine) -> None:
    mm = run(machine)
    limit = int(machine.state.mm[mm].stack_limit)
    assert machine.write(mm, STACK_TOP - INITIAL_STACK - 8 * PAGE_SIZE, 1) != NIL
    assert areas(machine, mm)[-1][0] == STACK_TOP - INITIAL_STACK - 8 * PAGE_SIZE
    assert machine.write(mm, STACK_TOP - limit, 1) != NIL
    assert machine.write(mm, STACK_TOP - limit - PAGE_SIZE, 1) == NIL
    check(machine.state)


def test_mappings_keep_clear_of_a_large_stack(machine: VmMachine) -> None:
    old = machine.spawn()
    setrlimit(machine.state, old, Limit.STACK, 512 * MIB)
    mm = exec_mm(machine.state, old, install(machine.state, STATIC, 3))
    guard = int(machine.state.knob[Knob.STACK_GUARD_PAGES]) * PAGE_SIZE
    assert machine.state.mm[mm].mmap_top == STACK_TOP - 512 * MIB - guard


def test_a_program_without_room_leaves_the_old_address_space_as_it_was(machine: VmMachine) -> None:
    old = machine.spawn()
    vaddr = machine.map(old, 2)
    setrlimit(machine.state, old, Limit.AS, 36 * PAGE_SIZE)
    with pytest.raises(ExecError, match="no room for 4096 bytes of the program at 0x403000"):
        exec_mm(machine.state, old, install(machine.state, STATIC, 3))
    assert machine.write(old, vaddr, 1) != NIL
    check(machine.state)


def test_segments_that_overlap_are_refused(machine: VmMachine) -> None:
    with pytest.raises(ElfError, match="begins at 0x401000, below the end"):
        install(machine.state, ElfImage((TEXT, Segment(0x401000, 1, 1, 0x1000, PF_R)), 0), 1)
