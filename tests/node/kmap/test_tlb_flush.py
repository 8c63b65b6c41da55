"""Flushes: who is interrupted, what is dropped, what Linux counts, and what it costs."""

import pytest

from node.counters import HwEvent, VmEvent
from node.hw.cost import Cost
from node.hw.paging import AccessKind
from node.hw.pte import Pte
from node.hw.tlb import TlbArray
from node.kmap.asid import INIT_MM, enter_lazy_tlb
from node.kmap.entry import enter_kernel, go_idle, run_in_user_mode
from node.kmap.flush_calls import FLUSH_ALL, flush_tlb_mm, flush_tlb_page
from node.kmap.tlb_check import forbidden_entries
from node.kmap.tlb_flush import SINGLE_PAGE_FLUSH_CEILING, flush_tlb_all, flush_tlb_range, retire_mm
from shared.constants import PAGE_SIZE
from tests.node.hw.entries import do_access
from tests.node.hw.small_machine import KERNEL_RW, USER_RO, USER_RW, Cached, SmallMachine

pytestmark = pytest.mark.three_ways

READ, WRITE = AccessKind.READ, AccessKind.WRITE
VADDR = 0x40_0000_0000
KERNEL = -(1 << 47)
NR_PAGES = 40
COUNTERS = (
    VmEvent.NR_TLB_REMOTE_FLUSH,
    VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED,
    VmEvent.NR_TLB_LOCAL_FLUSH_ALL,
    VmEvent.NR_TLB_LOCAL_FLUSH_ONE,
)
ALL_FOUR = pytest.mark.parametrize(
    ("pcid", "pti"), [(True, True), (True, False), (False, True), (False, False)]
)


def machine_with(nr_cpus: int = 1, *, pcid: bool = True, pti: bool = False) -> SmallMachine:
    """Return a machine whose TLBs never need to replace anything, with NR_PAGES pages in two address spaces."""
    tlb = {
        "unified": {"4K+2M+1G": {"entries": 128, "ways": "full"}},
        "second": {"4K+2M+1G": {"entries": 256, "ways": "full"}},
    }
    walk_caches = {name: {"entries": 8} for name in ("pd", "pdpt", "pml4")}
    hw = {"pcid": pcid, "pti": pti, "tlb": tlb, "walk_caches": walk_caches}
    machine = SmallMachine(nr_cpus=nr_cpus, hw=hw)
    for mm in (1, 2):
        for number in range(NR_PAGES):
            machine.map(mm, page(number), 1 + number)
    return machine


def page(number: int) -> int:
    return VADDR + number * PAGE_SIZE


def use(machine: SmallMachine, cpu: int, mm: int, nr_pages: int = NR_PAGES) -> None:
    """Let a process run on a CPU and use its pages."""
    machine.run_on(cpu)
    for number in range(nr_pages):
        assert do_access(machine.state, mm, page(number), READ) == 1 + number


def pages_of(machine: SmallMachine, pcid: int, cpu: int = 0) -> set[int]:
    """Return the numbers of the pages that a CPU has cached under a PCID."""
    return {
        (entry.vaddr - VADDR) // PAGE_SIZE
        for entry in machine.cached(cpu)
        if entry.pcid == pcid and entry.role < TlbArray.WALK_PD
    }


def walk_entries(machine: SmallMachine, pcid: int, cpu: int = 0) -> set[Cached]:
    return {entry for entry in machine.cached(cpu) if entry.pcid == pcid and entry.role >= TlbArray.WALK_PD}


# --- what is dropped ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nr_pages", "counted"), [(1, [0, 1]), (33, [0, 33]), (34, [1, 0]), (40, [1, 0])])
@pytest.mark.parametrize("pti", [True, False])
def test_up_to_33_pages_are_flushed_singly_and_more_as_a_whole(
    nr_pages: int, counted: list[int], pti: bool
) -> None:
    machine = machine_with(pti=pti)
    use(machine, 0, 2)
    use(machine, 0, 1)
    user_pcid_of = {1: 2 + 2048 * pti + 1, 2: 2 + 2048 * pti}
    assert pages_of(machine, user_pcid_of[1]) == set(range(NR_PAGES))
    flush_tlb_range(machine.state, 1, page(2), page(2 + nr_pages), 0)
    is_whole = nr_pages > SINGLE_PAGE_FLUSH_CEILING
    gone = set(range(NR_PAGES)) if is_whole else set(range(2, 2 + nr_pages))
    assert pages_of(machine, user_pcid_of[1]) == set(range(NR_PAGES)) - gone
    assert pages_of(machine, user_pcid_of[2]) == set(range(NR_PAGES))
    assert machine.vm_events(*COUNTERS) == [0, 0, *counted]


def test_a_flush_of_all_takes_33_pages_or_less_too() -> None:
    machine = machine_with()
    use(machine, 0, 1)
    flush_tlb_mm(machine.state, 1)
    assert pages_of(machine, 2) == set()
    assert machine.vm_events(*COUNTERS) == [0, 0, 1, 0]


@ALL_FOUR
def test_a_page_that_is_taken_away_and_flushed_is_gone(pcid: bool, pti: bool) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    use(machine, 0, 1)
    machine.map(1, page(3), 0, 0)
    flush_tlb_page(machine.state, 1, page(3))
    assert do_access(machine.state, 1, page(3), READ) < 0
    assert do_access(machine.state, 1, page(4), READ) == 5
    assert forbidden_entries(machine.state) == []


@pytest.mark.parametrize("pti", [True, False])
def test_a_flush_of_one_page_drops_the_walk_caches_of_both_halves(pti: bool) -> None:
    machine = machine_with(pti=pti)
    use(machine, 0, 1)
    halves = [2, 2050] if pti else [2]
    assert walk_entries(machine, halves[-1]) != set()
    flush_tlb_page(machine.state, 1, page(0))
    assert [walk_entries(machine, pcid) for pcid in halves] == [set() for _ in halves]


def test_global_pages_survive_a_flush_of_an_address_space() -> None:
    machine = machine_with()
    machine.map(0, KERNEL, 9, USER_RW | Pte.GLOBAL)
    use(machine, 0, 1)
    do_access(machine.state, 1, KERNEL, READ)
    flush_tlb_mm(machine.state, 1)
    assert {entry.vaddr for entry in machine.cached() if entry.is_global} == {KERNEL}


def test_with_isolation_the_users_half_of_a_whole_flush_waits_for_the_return_to_user_mode() -> None:
    machine = machine_with(pti=True)
    use(machine, 0, 1)
    enter_kernel(machine.state)
    flush_tlb_mm(machine.state, 1)
    assert machine.state.cpu[0].user_flush_mask == 1 << 1
    assert pages_of(machine, 2050) == set(range(NR_PAGES))
    assert forbidden_entries(machine.state) == []
    run_in_user_mode(machine.state, 1)
    assert machine.state.cpu[0].user_flush_mask == 0
    assert pages_of(machine, 2050) == set()


# --- who is asked ---------------------------------------------------------------------------------------


def four_cpus() -> SmallMachine:
    """Return a machine whose CPUs 0, 1 and 3 run address space 1, and CPU 2 the other; 3 is lazy."""
    machine = machine_with(4)
    for cpu, mm in enumerate((1, 1, 2, 1)):
        use(machine, cpu, mm)
    go_idle(machine.state, 3)
    machine.run_on(0)
    return machine


def test_only_cpus_that_run_the_address_space_are_interrupted() -> None:
    machine = four_cpus()
    flush_tlb_page(machine.state, 1, page(0))
    assert machine.vm_events(*COUNTERS) == [1, 1, 0, 1]
    caches = [0 in pages_of(machine, 2, cpu) for cpu in range(4)]
    # CPU 2 has another's page there; the lazy one's generation is behind.
    assert caches == [False, False, True, True]
    assert forbidden_entries(machine.state) == []


def test_a_lazy_cpu_is_interrupted_if_tables_were_freed_and_moves_to_the_kernels_own() -> None:
    machine = four_cpus()
    flush_tlb_range(machine.state, 1, page(0), page(1), 1)
    assert machine.vm_events(*COUNTERS) == [1, 2, 0, 1]
    lazy = machine.state.cpu[3]
    assert (lazy.mm, lazy.lazy) == (INIT_MM, 0)
    assert [machine.state.cpu[cpu].mm for cpu in (0, 1, 2)] == [1, 1, 2]


def test_a_cpu_that_is_lazy_itself_is_asked_as_the_others_are() -> None:
    machine = machine_with(2)
    for cpu in (1, 0):
        use(machine, cpu, 1)
    go_idle(machine.state, 0)
    flush_tlb_page(machine.state, 1, page(0))
    assert (machine.state.cpu[0].mm, machine.state.cpu[0].lazy) == (1, 1)
    assert machine.vm_events(*COUNTERS) == [1, 1, 0, 0]
    # Alone it does not ask, and moves over.
    go_idle(machine.state, 1)
    flush_tlb_range(machine.state, 1, page(0), page(1), 1)
    machine.run_on(0)
    assert [machine.state.cpu[cpu].mm for cpu in (0, 1)] == [INIT_MM, INIT_MM]


def test_lazy_cpus_alone_are_a_remote_flush_that_nobody_receives() -> None:
    machine = machine_with(2)
    use(machine, 1, 1)
    go_idle(machine.state, 1)
    use(machine, 0, 1)
    flush_tlb_page(machine.state, 1, page(0))
    assert machine.vm_events(*COUNTERS) == [1, 0, 0, 1]


def test_nobody_is_interrupted_for_an_address_space_that_is_loaded_nowhere() -> None:
    machine = machine_with(2)
    use(machine, 1, 1)
    use(machine, 1, 2)
    use(machine, 0, 2)
    before = [machine.state.cpu[cpu].clock_ps for cpu in (0, 1)], machine.now()
    flush_tlb_mm(machine.state, 1)
    assert machine.vm_events(*COUNTERS) == [0, 0, 0, 0]
    assert ([machine.state.cpu[cpu].clock_ps for cpu in (0, 1)], machine.now()) == before
    # But its translations are found out of date when it comes back.
    walks = machine.events(HwEvent.TLB_WALK)[0]
    use(machine, 1, 1)
    assert machine.events(HwEvent.TLB_WALK) == [walks + NR_PAGES]


@pytest.mark.parametrize("missed", [1, 2])
def test_a_cpu_that_is_several_flushes_behind_drops_everything(missed: int) -> None:
    machine = machine_with(2)
    use(machine, 1, 1)
    enter_kernel(machine.state)
    enter_lazy_tlb(machine.state, 1)
    machine.run_on(0)
    for _ in range(missed):
        flush_tlb_page(machine.state, 1, page(0))
    use(machine, 1, 1, 1)
    assert pages_of(machine, 2, 1) == {0}


def test_the_cpus_of_a_process_that_ends_all_move_to_the_kernels_own_tables() -> None:
    machine = four_cpus()
    machine.state.mm[1].alive = 0
    retire_mm(machine.state, 1)
    assert [machine.state.cpu[cpu].mm for cpu in range(4)] == [INIT_MM, INIT_MM, 2, INIT_MM]
    assert [machine.state.cpu[cpu].cpl for cpu in range(4)] == [0, 0, 3, 0]
    assert machine.vm_events(*COUNTERS) == [1, 2, 0, 0]
    assert forbidden_entries(machine.state) == []


def test_flushing_everything_leaves_no_cpu_anything() -> None:
    machine = four_cpus()
    machine.map(0, KERNEL, 9, KERNEL_RW | Pte.GLOBAL)
    flush_tlb_all(machine.state)
    assert [machine.cached(cpu) for cpu in range(4)] == [set()] * 4
    # do_flush_tlb_all counts on every CPU, the first too.
    assert machine.vm_events(*COUNTERS)[:2] == [1, 4]


# --- what it costs --------------------------------------------------------------------------------------


def clocks(machine: SmallMachine) -> list[int]:
    """Return the current clock, and those of the other CPUs."""
    return [machine.now(), *(int(machine.state.cpu[cpu].clock_ps) for cpu in range(1, 4))]


@pytest.mark.parametrize("nr_pages", [1, 33])
def test_single_flushes_are_charged_to_each_cpu_that_does_them(nr_pages: int) -> None:
    machine = four_cpus()
    before = clocks(machine)
    flush_tlb_range(machine.state, 1, page(0), page(nr_pages), 0)
    cost = machine.state.cost
    flushes = nr_pages * cost[Cost.TLB_FLUSH_ONE]
    spent = [after - start for after, start in zip(clocks(machine), before, strict=True)]
    assert spent == [cost[Cost.IPI] + flushes, cost[Cost.IPI_HANDLER] + flushes, 0, 0]


def test_a_whole_flush_costs_a_write_of_cr3() -> None:
    machine = four_cpus()
    before = clocks(machine)
    flush_tlb_range(machine.state, 1, 0, FLUSH_ALL, 0)
    cost = machine.state.cost
    spent = [after - start for after, start in zip(clocks(machine), before, strict=True)]
    whole = cost[Cost.CR3_WRITE]
    assert spent == [cost[Cost.IPI] + whole, cost[Cost.IPI_HANDLER] + whole, 0, 0]


def test_an_interrupt_from_user_mode_crosses_the_border_twice() -> None:
    machine = machine_with(2, pti=True)
    for cpu in (1, 0):
        use(machine, cpu, 1)
    enter_kernel(machine.state)
    before = int(machine.state.cpu[1].clock_ps)
    writes = machine.events(HwEvent.CR3_WRITE, HwEvent.KERNEL_ENTRY)
    flush_tlb_page(machine.state, 1, page(0))
    cost = machine.state.cost
    expected = cost[Cost.IPI_HANDLER] + cost[Cost.TLB_FLUSH_ONE] + 2 * cost[Cost.CR3_WRITE]
    assert machine.state.cpu[1].clock_ps - before == expected
    assert machine.events(HwEvent.CR3_WRITE, HwEvent.KERNEL_ENTRY) == [writes[0] + 2, writes[1] + 1]
    assert machine.state.cpu[1].cpl == 3


def test_the_end_of_a_process_is_charged_to_the_clocks_of_the_cpus_that_leave_it() -> None:
    machine = machine_with(2, pti=True)
    for cpu in (1, 0):
        use(machine, cpu, 1)
    enter_kernel(machine.state)
    machine.state.cpu[1].clock_ps = 1_000_000_000
    before = machine.now()
    retire_mm(machine.state, 1)
    cost = machine.state.cost
    # Here: init_mm's CR3 and the wait. There: CR3 out of user mode, the interrupt, init_mm's CR3.
    assert machine.now() - before == cost[Cost.IPI] + cost[Cost.CR3_WRITE]
    there = cost[Cost.IPI_HANDLER] + 2 * cost[Cost.CR3_WRITE]
    assert machine.state.cpu[1].clock_ps == 1_000_000_000 + there


# --- forgotten flushes are found ------------------------------------------------------------------------


@ALL_FOUR
@pytest.mark.parametrize("change", ["other frame", "read-only", "gone", "D cleared", "no execution"])
def test_the_check_finds_an_entry_whose_flush_was_forgotten(pcid: bool, pti: bool, change: str) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    use(machine, 0, 1)
    do_access(machine.state, 1, page(3), WRITE)
    assert forbidden_entries(machine.state) == []
    bits = USER_RW | Pte.ACCESSED | Pte.DIRTY
    pfn, new_bits = {
        "other frame": (77, bits),
        "read-only": (4, USER_RO | Pte.ACCESSED | Pte.DIRTY),
        "gone": (0, 0),
        "D cleared": (4, bits & ~Pte.DIRTY),
        "no execution": (4, bits - (1 << 63)),
    }[change]
    machine.map(1, page(3), pfn, new_bits)
    found = forbidden_entries(machine.state)
    # First and second level.
    assert len(found) == 2
    assert all(f"{page(3):#x}" in line and "CPU 0" in line for line in found)
    flush_tlb_page(machine.state, 1, page(3))
    assert forbidden_entries(machine.state) == []


@pytest.mark.parametrize("pti", [True, False])
def test_the_check_finds_what_only_another_cpu_or_an_earlier_process_holds(pti: bool) -> None:
    machine = machine_with(2, pti=pti)
    use(machine, 1, 1)
    use(machine, 1, 2)
    machine.map(1, page(0), 77)
    # Two levels of CPU 1, whose generation is still the address space's.
    assert len(forbidden_entries(machine.state)) == 2
    machine.run_on(0)
    flush_tlb_page(machine.state, 1, page(0))
    assert forbidden_entries(machine.state) == []


def test_the_check_finds_a_generation_that_moved_on_without_the_cpu_that_runs() -> None:
    machine = machine_with(pti=True)
    use(machine, 0, 1)
    machine.map(1, page(0), 77)
    machine.state.mm[1].tlb_gen += 1
    assert len(forbidden_entries(machine.state)) == 2
    machine.state.mm[1].tlb_gen -= 1
    machine.state.cpu[0].user_flush_mask = 1 << 1  # to no avail: user mode is not left
    assert len(forbidden_entries(machine.state)) == 2


@ALL_FOUR
def test_the_check_finds_a_table_that_a_walk_cache_still_leads_to(pcid: bool, pti: bool) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    use(machine, 0, 1, 1)
    table = machine.position(1, page(0)) >> 9
    upper = next(index for index, word in enumerate(machine.state.pt_word[:].tolist()) if word >> 12 == table)
    word = machine.state.pt_word[upper]
    machine.state.pt_word[upper] = 0
    # The page in two levels, and the entry of the page directory that leads to its table.
    assert len(forbidden_entries(machine.state)) == 3
    flush_tlb_range(machine.state, 1, page(0), page(1), 1)
    assert forbidden_entries(machine.state) == []
    machine.state.pt_word[upper] = word & ~Pte.WRITE
    assert do_access(machine.state, 1, page(0), WRITE) < 0


def test_the_check_finds_global_entries_that_the_kernels_table_lacks() -> None:
    machine = machine_with()
    machine.map(0, KERNEL, 9, USER_RW | Pte.GLOBAL)
    do_access(machine.state, 1, KERNEL, READ)
    assert forbidden_entries(machine.state) == []
    machine.map(0, KERNEL, 0, 0)
    assert len(forbidden_entries(machine.state)) == 2
    flush_tlb_all(machine.state)
    assert forbidden_entries(machine.state) == []
