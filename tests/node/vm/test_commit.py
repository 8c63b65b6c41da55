"""Promises of memory and limits of address spaces, against the formulas of Linux's documentation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Knob, VmStat
from node.invariants import check
from node.proc.meminfo import meminfo as meminfo_text
from node.vm.commit import USER_RESERVE_PAGES, Overcommit
from node.vm.mm import MM_LIMITS, Limit, setrlimit
from node.vm.mm_init import BRK_START
from node.vm.mmap import brk, mmap, munmap
from node.vm.vma import VmFlag
from shared.constants import KIB, MIB, NIL, PAGE_KIB, PAGE_SHIFT, PAGE_SIZE
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways

SWAP_BYTES = 8 * MIB


def meminfo(machine: VmMachine) -> dict[str, int]:
    lines = (line.split() for line in meminfo_text(machine.state).splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def machine_in(mode: Overcommit) -> VmMachine:
    machine = VmMachine(swap_bytes=SWAP_BYTES)
    machine.state.knob[Knob.OVERCOMMIT_MEMORY] = mode
    return machine


def test_by_default_one_request_may_have_all_memory_and_swap_and_no_more() -> None:
    machine = machine_in(Overcommit.GUESS)
    mm = machine.spawn()
    before = meminfo(machine)
    everything = (before["MemTotal"] + before["SwapTotal"]) * KIB
    assert mmap(machine.state, mm, everything + PAGE_SIZE, READ_WRITE) == NIL
    for _ in range(3):
        assert mmap(machine.state, mm, everything, READ_WRITE) != NIL
    assert meminfo(machine)["Committed_AS"] == before["Committed_AS"] + 3 * everything // KIB
    check(machine.state)


def test_always_refuses_nothing() -> None:
    machine = machine_in(Overcommit.ALWAYS)
    mm = machine.spawn()
    assert mmap(machine.state, mm, 1 << 40, READ_WRITE) != NIL
    check(machine.state)


@pytest.mark.parametrize(("ratio", "kbytes"), [(50, 0), (80, 0), (50, 20000)])
def test_the_commit_limit_is_a_share_of_memory_and_all_swap(ratio: int, kbytes: int) -> None:
    machine = machine_in(Overcommit.NEVER)
    machine.state.knob[Knob.OVERCOMMIT_RATIO] = ratio
    machine.state.knob[Knob.OVERCOMMIT_KBYTES] = kbytes
    values = meminfo(machine)
    nr_pages = values["MemTotal"] // PAGE_KIB * ratio // 100
    share = kbytes or nr_pages * PAGE_KIB
    assert values["CommitLimit"] == share + values["SwapTotal"]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2500)), max_size=15))
def test_never_keeps_the_sum_of_promises_below_the_limit(steps: list[tuple[bool, int]]) -> None:
    machine = machine_in(Overcommit.NEVER)
    mm = machine.spawn()
    limit = meminfo(machine)["CommitLimit"] // PAGE_KIB
    memory = meminfo(machine)["MemTotal"] // PAGE_KIB
    held: list[tuple[int, int]] = []
    for gives_back, nr_pages in steps:
        if gives_back and held:
            start, length = held.pop()
            munmap(machine.state, mm, start, start + length)
            continue
        promised = sum(length for _, length in held) >> PAGE_SHIFT
        reserve = min(promised // 32, memory // 32, USER_RESERVE_PAGES)
        start = mmap(machine.state, mm, nr_pages << PAGE_SHIFT, READ_WRITE)
        assert (start != NIL) == (promised + nr_pages < limit - reserve)
        if start != NIL:
            held.append((start, nr_pages << PAGE_SHIFT))
    assert machine.state.vm_stat[VmStat.NR_COMMITTED] == sum(length for _, length in held) >> PAGE_SHIFT
    check(machine.state)


def test_what_can_be_read_again_or_is_only_read_is_no_promise() -> None:
    machine = machine_in(Overcommit.NEVER)
    mm = machine.spawn()
    assert mmap(machine.state, mm, 1 << 35, VmFlag.READ) != NIL
    assert machine.state.vm_stat[VmStat.NR_COMMITTED] == 0


def test_a_limit_on_the_address_space_counts_every_area() -> None:
    machine = machine_in(Overcommit.GUESS)
    mm = machine.spawn()
    setrlimit(machine.state, mm, Limit.AS, 10 * PAGE_SIZE)
    assert mmap(machine.state, mm, 6 * PAGE_SIZE, VmFlag.READ) != NIL
    assert mmap(machine.state, mm, 5 * PAGE_SIZE, READ_WRITE) == NIL
    assert mmap(machine.state, mm, 4 * PAGE_SIZE, READ_WRITE) != NIL
    assert machine.state.mm[machine.fork(mm)].as_limit == 10 * PAGE_SIZE
    check(machine.state)


def test_a_limit_on_data_counts_private_writable_areas_and_the_heap() -> None:
    machine = machine_in(Overcommit.GUESS)
    mm = machine.spawn()
    setrlimit(machine.state, mm, Limit.DATA, 6 * PAGE_SIZE)
    assert mmap(machine.state, mm, 9 * PAGE_SIZE, VmFlag.READ) != NIL
    assert mmap(machine.state, mm, 4 * PAGE_SIZE, READ_WRITE) != NIL
    assert brk(machine.state, mm, BRK_START + 3 * PAGE_SIZE) == BRK_START
    assert brk(machine.state, mm, BRK_START + 2 * PAGE_SIZE) == BRK_START + 2 * PAGE_SIZE
    check(machine.state)


def test_each_limit_is_a_field_of_the_address_space() -> None:
    machine = machine_in(Overcommit.GUESS)
    mm = machine.spawn()
    for limit in Limit:
        setrlimit(machine.state, mm, limit, (limit + 1) * MIB)
    fields = [int(getattr(machine.state.mm[mm], MM_LIMITS[limit])) for limit in Limit]
    assert fields == [(limit + 1) * MIB for limit in Limit]
