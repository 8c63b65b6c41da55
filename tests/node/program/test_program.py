"""Commands of workload programs that recorded cases do not have."""

import pytest

from node.invariants import check
from node.machine import Machine, MachineSpec
from node.program.text import ProgramError
from shared.constants import MIB

pytestmark = pytest.mark.three_ways

AT = 0x1000_0000


def machine(**hw: str) -> Machine:
    return Machine(MachineSpec(memory_bytes=80 * MIB).with_hw(**hw))


def test_a_mapping_lies_where_it_was_asked_for() -> None:
    box = machine()
    box.run_program(f"spawn A\nA: mmap h 4P at={AT:#x}\nA: write h\nsnapshot s\n")
    vma = box.state.vma[box.state.mm[1].first_vma]
    assert (vma.start, vma.end) == (AT, AT + 4 * 4096)
    check(box.state)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("g 1P at=0x10003000", "at=0x10003000: mapping h is there, from 0x10000000 to 0x10004000"),
        ("g 8P at=0xfffe000", "at=0xfffe000: mapping h is there, from 0x10000000 to 0x10004000"),
        ("g 1P at=0x20000001", "at=0x20000001 is not a multiple of 4096"),
        (
            "g 2P at=0x7fffffffe000",
            "at=0x7fffffffe000: 8192 bytes from there reach beyond 0x7ffffffff000, the end of user space",
        ),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_one_line(command: str, reason: str) -> None:
    box = machine()
    with pytest.raises(ProgramError) as caught:
        box.run_program(f"spawn A\nA: mmap h 4P at={AT:#x}\nA: mmap {command}\nsnapshot s\n")
    assert str(caught.value) == f"line 3: {reason}"


def test_an_address_beyond_32_bits_is_refused_on_a_32_bit_machine() -> None:
    with pytest.raises(ProgramError, match="reach beyond 0xc0000000, the end of user space"):
        machine(paging="32bit").run_program("spawn A\nA: mmap h 1P at=0x100000000\nsnapshot s\n")


def test_without_paging_no_place_can_be_chosen() -> None:
    with pytest.raises(ProgramError, match="without paging a mapping lies where its memory is"):
        machine(paging="none").run_program("spawn A\nA: mmap h 1P at=0x2000000\nsnapshot s\n")


def test_compact_moves_pages_together() -> None:
    box = machine()
    box.run_program(
        "spawn A\nspawn B\nrepeat 40\n  A: mmap a$i 3P\n  A: write a$i\n  B: mmap b$i 3P\n  B: write b$i\nend\n"
        "A: exit\ncompact\nsnapshot s\n"
    )
    events = box.counters()
    assert events["pgmigrate_success"] > 0
    assert events["compact_isolated"] > events["pgmigrate_success"]
    check(box.state)


def test_compact_takes_no_arguments() -> None:
    with pytest.raises(ProgramError, match="line 1: 'now' is not understood: expected compact"):
        machine().run_program("compact now\nsnapshot s\n")


def test_a_heap_that_shrinks_gives_its_end_back() -> None:
    box = machine()
    box.run_program("spawn A\nA: brkgrow h 8P\nA: write h\nA: brkshrink h 3P\nA: write h\nsnapshot s\n")
    counters = box.counters()
    assert (counters["nr_anon_pages"], counters["nr_committed"]) == (5, 5)
    assert counters["pgfault"] == 8  # the second write finds its pages
    check(box.state)


@pytest.mark.parametrize(
    "lines", ["A: brkgrow h 2P\nA: brkshrink h 2P\n", "A: mmap h 2P\nA: brkshrink h 1P\n"]
)
def test_only_the_end_of_the_heap_is_given_back(lines: str) -> None:
    with pytest.raises(
        ProgramError, match="line 3: brkshrink h: expected the end of the heap, and less than"
    ):
        machine().run_program("spawn A\n" + lines + "snapshot s\n")


def test_a_mapping_that_is_resized_keeps_its_pages_and_its_name() -> None:
    box = machine()
    result = box.run_program(
        "spawn A\nA: mmap below 1P\nA: mmap h 8P\nA: write h\nA: mmap wall 1P shared\nA: mremap h 20P\nsnapshot moved\n"
        "A: write h\nA: mremap h 4P\nA: read h\nsnapshot shrunk\n"
    )
    moved, shrunk = (values for name, values in result.snapshots if name != "boot")
    names = ("vmstat.pgfault", "proc.A.map.h.pages", "proc.A.map.h.present", "vmstat.nr_anon_pages")
    assert [moved[name] for name in names] == [8, 20, 8, 8]
    assert [shrunk[name] for name in names] == [20, 4, 4, 4]
    check(box.state)


def test_a_mapping_with_a_hole_is_not_resized() -> None:
    with pytest.raises(ProgramError, match="line 4: mremap of h to 65536 bytes failed: EFAULT"):
        machine().run_program(
            "spawn A\nA: mmap h 8P\nA: munmap h off=2P len=1P\nA: mremap h 16P\nsnapshot s\n"
        )


def test_a_process_that_tries_survives_what_is_refused() -> None:
    box = machine()
    box.run_program(
        "spawn A\nA: mmap h 4P ro\nA: try h write\nA: try h read len=3P\nA: munmap h off=1P len=2P\nA: try h read\n"
        "A: exit\nsnapshot s\n"
    )
    counters = box.counters()
    assert (counters["fault.bad_access"], counters["fault.bad_area"]) == (4, 2)
    assert counters["fault.anon_zero_page"] == 3 + 1  # the last page is read by the second try
    assert counters["pgfault"] == 4


def test_a_system_call_that_copies_ends_where_it_is_refused() -> None:
    box = machine()
    box.run_program(
        "spawn A\nA: mmap h 4P\nA: copyto h len=2P\nA: munmap h off=2P len=1P\nA: copyto h\nA: copyfrom h off=3P\n"
        "A: mprotect h ro off=3P\nA: copyto h off=3P\nA: copyfrom h off=3P\nsnapshot s\n"
    )
    counters = box.counters()
    assert counters["fault.kernel_fixup"] == 2
    assert counters["fault.bad_area"] == counters["fault.bad_access"] == 0
    assert (counters["fault.anon_new_page"], counters["fault.anon_zero_page"]) == (2, 1)
    check(box.state)
