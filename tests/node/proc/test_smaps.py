"""/proc/PID/smaps: sums per area, beside a model that looks at one page after the other."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from node.hw.pte import PFN_MASK, Pte
from node.phys.page import PageFlag
from node.proc.areas import Names
from node.proc.smaps import rollup, smaps, smaps_rollup
from node.vm.madvise import Advice, madvise
from node.vm.vma import VmFlag
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from tests.node.proc.process_machine import ProcessMachine

NAMES = Names()
# Of a real kernel: fs/proc/task_mmu.c.
LINES = (
    *("Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty"),
    *("Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "LazyFree", "AnonHugePages"),
    *("ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked"),
)
NR_PAGES = 6


def sizes_of(text: str) -> list[dict[str, int]]:
    """Return the lines with a unit of each area of a file, by name."""
    areas: list[dict[str, int]] = []
    for line in text.splitlines():
        if re.match("[0-9a-f]{8,}-", line):
            areas.append({})
        elif found := re.fullmatch(r"(\w+): +(\d+) kB", line):
            assert len(line) == 27
            areas[-1][found[1]] = int(found[2])
    return areas


def model(machine: ProcessMachine, mm: int, vaddr: int, nr_pages: int) -> dict[str, int]:
    """Return some sums of an area of small pages, in bytes or, of Pss, in shares of 2**-12 bytes."""
    sums = dict.fromkeys(
        ("Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Anonymous"), 0
    )
    for page_vaddr in range(vaddr, vaddr + nr_pages * PAGE_SIZE, PAGE_SIZE):
        pte = machine.pte(mm, page_vaddr)
        if not pte & Pte.PRESENT or machine.is_zero_page(mm, page_vaddr):
            continue
        page = machine.state.page[(pte >> PAGE_SHIFT) & PFN_MASK]
        sums["Rss"] += PAGE_SIZE
        sums["Pss"] += (PAGE_SIZE << 12) // page.mapcount
        dirty = pte & Pte.DIRTY or page.page_flags & PageFlag.DIRTY
        sums[f"{'Shared' if page.mapcount > 1 else 'Private'}_{'Dirty' if dirty else 'Clean'}"] += PAGE_SIZE
        sums["Anonymous"] += PAGE_SIZE if page.page_flags & PageFlag.ANON else 0
    return sums


def test_lines_have_linux_s_names_order_and_columns() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.map(mm, 4)
    lines = smaps(machine.state, mm, NAMES).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [*LINES, "THPeligible", "VmFlags"]
    assert lines[1] == "Size:                 16 kB"
    assert lines[2] == "KernelPageSize:        4 kB"
    assert lines[15] == "ShmemPmdMapped:        0 kB"
    assert lines[18] == "Private_Hugetlb:       0 kB"
    assert lines[-2:] == ["THPeligible:    0", "VmFlags: rd wr mr mw me ac sd "]


def test_flags_are_two_letters_each_by_the_number_of_the_bit() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    flags = VmFlag.READ | VmFlag.EXEC | VmFlag.LOCKED | VmFlag.LOCKONFAULT | VmFlag.MERGEABLE
    machine.map(mm, 1, flags)
    machine.map_shared(mm, 1)
    shown = [line for line in smaps(machine.state, mm, NAMES).splitlines() if line.startswith("VmFlags")]
    assert shown == ["VmFlags: rd wr sh mr mw me ms sd ", "VmFlags: rd ex mr mw me lo ?? sd mg "]


@given(steps=st.lists(st.tuples(st.sampled_from("rwRWf"), st.integers(0, NR_PAGES - 1)), max_size=16))
@settings(max_examples=12)
def test_sums_are_those_of_the_pages_one_by_one(steps: list[tuple[str, int]]) -> None:
    machine = ProcessMachine()
    parent = machine.spawn()
    vaddr = machine.map(parent, NR_PAGES)
    shared = machine.map_shared(parent, NR_PAGES)
    family = [parent]
    for what, page in steps:
        start = shared if what.isupper() else vaddr
        if what == "f":
            if len(family) < 4:
                family.append(machine.fork(family[-1]))
        elif what.lower() == "r":
            machine.read(family[page % len(family)], start + page * PAGE_SIZE)
        else:
            machine.write(family[page % len(family)], start + page * PAGE_SIZE, 1)
    for mm in family:
        areas = sizes_of(smaps(machine.state, mm, NAMES))
        expected = [model(machine, mm, start, NR_PAGES) for start in sorted((vaddr, shared))]
        for area, of_model in zip(areas, expected, strict=True):
            for name, value in of_model.items():
                assert area[name] == value >> (22 if name == "Pss" else 10), (name, mm)
        whole = rollup(machine.state, mm)
        assert whole["Pss"] == sum(of_model["Pss"] for of_model in expected) >> 22
        assert whole["Rss"] == sum(area["Rss"] for area in areas)
        assert whole["Pss_Anon"] + whole["Pss_File"] + whole["Pss_Shmem"] in (
            whole["Pss"],
            whole["Pss"] - 1,
            whole["Pss"] - 2,
        )


def test_pages_in_swap_are_shared_by_the_entries_that_lead_to_them() -> None:
    machine = ProcessMachine(swap_bytes=1 << 20)
    mm = machine.spawn()
    vaddr = machine.map(mm, 4)
    for page in range(4):
        machine.write(mm, vaddr + page * PAGE_SIZE, 1)
    machine.swap_out(mm, vaddr, 5, 1)
    machine.swap_out(mm, vaddr + PAGE_SIZE, 6, 4)
    (area,) = sizes_of(smaps(machine.state, mm, NAMES))
    assert (area["Rss"], area["Swap"], area["SwapPss"]) == (8, 8, 5)


def test_locked_is_the_share_of_pages_in_locked_areas() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    vaddr = machine.map(mm, 2, VmFlag.READ | VmFlag.WRITE | VmFlag.LOCKED)
    machine.write(mm, vaddr, 1)
    machine.write(mm, machine.map(mm, 1), 1)
    assert [area["Locked"] for area in sizes_of(smaps(machine.state, mm, NAMES))] == [0, 4]


def test_a_page_that_madvise_freed_is_lazily_free_until_it_is_written() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    vaddr = machine.map(mm, 2)
    for page in range(2):
        machine.write(mm, vaddr + page * PAGE_SIZE, 1)
    madvise(machine.state, mm, vaddr, vaddr + 2 * PAGE_SIZE, Advice.FREE)
    assert rollup(machine.state, mm)["LazyFree"] == 8
    machine.write(mm, vaddr, 2)
    assert rollup(machine.state, mm)["LazyFree"] == 4


def test_a_huge_page_counts_as_512_pages() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.map_huge_page(mm)
    (area,) = sizes_of(smaps(machine.state, mm, NAMES))
    assert (area["Rss"], area["Pss"], area["AnonHugePages"], area["Private_Dirty"]) == (2048,) * 4


def test_a_huge_page_that_another_maps_in_parts_is_shared() -> None:
    machine = ProcessMachine()
    whole, parts = machine.spawn(), machine.spawn()
    machine.map_by_small_entries(parts, machine.map_huge_page(whole))
    for mm in (whole, parts):
        (area,) = sizes_of(smaps(machine.state, mm, NAMES))
        assert (area["Rss"], area["Pss"], area["Shared_Dirty"] + area["Shared_Clean"]) == (2048, 1024, 2048)
    assert rollup(machine.state, parts)["AnonHugePages"] == 0


def test_memory_of_hugetlbfs_has_lines_of_its_own() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    first = machine.map_huge_page(mm)
    machine.state.page["page_flags"][first : first + 512] = PageFlag.HUGETLB
    machine.state.page[first].mapcount = 1
    (area,) = sizes_of(smaps(machine.state, mm, NAMES))
    assert (area["Rss"], area["Private_Hugetlb"], area["Shared_Hugetlb"]) == (0, 2048, 0)


def test_the_rollup_spans_all_areas_without_rights() -> None:
    machine = ProcessMachine()
    mm = machine.spawn()
    machine.grow_heap(mm, 1)
    top = machine.map(mm, 2) + 2 * PAGE_SIZE
    first = smaps_rollup(machine.state, mm, NAMES).splitlines()[0]
    assert first == f"00600000-{top:x} ---p 00000000 00:00 0".ljust(73) + "[rollup]"
    assert smaps_rollup(machine.state, machine.spawn(), NAMES).startswith("00000000-00000000 ---p ")
