"""/proc/PID/pagemap: a word a page, and the counts of mappings that are read from the words."""

import numpy as np

from node.proc.pagemap import mapping_pages, pagemap
from shared.constants import HUGE_PAGE_SIZE, PAGE_SHIFT, PAGE_SIZE
from tests.node.proc.process_machine import HUGE_AT, ProcessMachine

PRESENT, SWAPPED, FILE, ONCE, SOFT_DIRTY = (1 << bit for bit in (63, 62, 61, 56, 55))


def words(machine: ProcessMachine, mm: int, vaddr: int, nr_pages: int) -> list[int]:
    data = pagemap(machine.state, mm, vaddr >> PAGE_SHIFT, nr_pages)
    values: list[int] = np.frombuffer(data, "<u8").tolist()
    return values


def test_a_word_has_the_frame_and_how_it_is_mapped() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    own = machine.write(mm, vaddr, 1)
    zero = machine.read(mm, vaddr + PAGE_SIZE)
    assert words(machine, mm, vaddr - PAGE_SIZE, 4) == [
        0,
        PRESENT | ONCE | SOFT_DIRTY | own,
        PRESENT | SOFT_DIRTY | zero,
        SOFT_DIRTY,
    ]


def test_a_page_of_two_processes_is_not_mapped_once() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    vaddr = machine.map(mm, 1)
    pfn = machine.write(mm, vaddr, 1)
    machine.fork(mm)
    assert words(machine, mm, vaddr, 1) == [PRESENT | SOFT_DIRTY | pfn]


def test_pages_of_files_and_of_shared_memory_say_so() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    for vaddr in (machine.map_shared(mm, 1), machine.map_shared(mm, 1, machine.file(4))):
        pfn = machine.write(mm, vaddr, 1)
        assert words(machine, mm, vaddr, 1) == [PRESENT | FILE | ONCE | SOFT_DIRTY | pfn]


def test_a_page_in_swap_has_its_slot_behind_the_number_of_the_area() -> None:
    machine = ProcessMachine(swap_bytes=1 << 20)
    mm = machine.spawn()
    vaddr = machine.map(mm, 1)
    machine.write(mm, vaddr, 1)
    machine.swap_out(mm, vaddr, 9, 1)
    assert words(machine, mm, vaddr, 1) == [SWAPPED | SOFT_DIRTY | 9 << 5]


def test_each_page_of_a_huge_page_has_a_frame_of_its_own() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    first = machine.map_huge_page(mm)
    found = words(machine, mm, HUGE_AT, 512)
    assert found == [PRESENT | ONCE | SOFT_DIRTY | pfn for pfn in range(first, first + 512)]


def test_counts_of_a_mapping_are_of_its_pages_alone() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    vaddr = machine.map(mm, 8)
    for page in range(6):
        machine.write(mm, vaddr + page * PAGE_SIZE, 1)
    machine.read(mm, vaddr + 6 * PAGE_SIZE)
    counts = mapping_pages(machine.state, mm, vaddr + 2 * PAGE_SIZE, vaddr + 8 * PAGE_SIZE)
    assert {name: count for name, count in counts.items() if count} == {
        "pages": 6,
        "present": 5,
        "exclusive": 4,
        "zero_page": 1,
        "anon": 4,
        "lru": 4,
        "swapbacked": 4,
    }


def test_of_a_huge_page_lru_counts_once_and_anon_512_times() -> None:
    # As the recording thp.json.gz has it of a huge page: anon 512, exclusive 512, lru 1, swapbacked 1, thp 512.
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.map_huge_page(mm)
    counts = mapping_pages(machine.state, mm, HUGE_AT, HUGE_AT + HUGE_PAGE_SIZE)
    assert {name: count for name, count in counts.items() if count} == {
        "pages": 512,
        "present": 512,
        "exclusive": 512,
        "thp": 512,
        "anon": 512,
        "lru": 1,
        "swapbacked": 1,
    }
