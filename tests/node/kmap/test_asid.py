"""ASIDs: whom a CPU remembers, and when loading an address space drops its translations."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Current, HwEvent, VmEvent
from node.hw.cost import Cost
from node.hw.paging import AccessKind
from node.kmap.asid import enter_lazy_tlb, kernel_pcid, switch_mm, user_pcid
from node.kmap.entry import enter_kernel, go_idle, leave_kernel, run_in_user_mode
from node.kmap.flush_calls import flush_tlb_mm, flush_tlb_page
from node.kmap.tlb_check import forbidden_entries
from node.kmap.tlb_flush import flush_tlb_range, retire_mm
from shared.constants import PAGE_SHIFT, PAGE_SIZE
from tests.models.asid import INIT, NOBODY, NR_ASIDS, AsidModel
from tests.node.hw.entries import do_access
from tests.node.hw.small_machine import DATA_HITS, SmallMachine

pytestmark = pytest.mark.three_ways

NR_MMS = 8
READ = AccessKind.READ
VADDR = 0x40_0000_0000
USER_BIT = 2048
LINUX_COUNTERS = (
    VmEvent.NR_TLB_REMOTE_FLUSH,
    VmEvent.NR_TLB_REMOTE_FLUSH_RECEIVED,
    VmEvent.NR_TLB_LOCAL_FLUSH_ALL,
    VmEvent.NR_TLB_LOCAL_FLUSH_ONE,
)
ALL_FOUR = [(pcid, pti) for pcid in (True, False) for pti in (True, False)]


def machine_with(nr_cpus: int = 1, *, pcid: bool = True, pti: bool = False) -> SmallMachine:
    roomy = {"unified": {"4K+2M+1G": {"entries": 64, "ways": "full"}}, "second": {"all": {"entries": 0}}}
    hw = {"pcid": pcid, "pti": pti, "tlb": roomy}
    machine = SmallMachine(nr_cpus=nr_cpus, nr_mms=NR_MMS, hw=hw)
    for mm in range(1, NR_MMS + 1):
        machine.map(mm, VADDR, mm)
    return machine


class Pair:
    """A machine and the model, taken through the same steps. Address spaces of the model are ctx_ids."""

    def __init__(self, nr_cpus: int, pcid: bool, pti: bool) -> None:
        self.machine = machine_with(nr_cpus, pcid=pcid, pti=pti)
        self.state = self.machine.state
        self.model = AsidModel(nr_cpus, pcid=pcid, pti=pti)
        self.have_switched: set[int] = set()

    def ctx_id(self, mm: int) -> int:
        return int(self.state.mm[mm].ctx_id) if mm else INIT

    def step(self, what: str, cpu: int, mm: int, number: int) -> None:
        """Take one step on a CPU in both, and compare which CR3 was written how often."""
        self.model.writes.clear()
        before = Counter(self.cr3_events())
        self.machine.run_on(cpu)
        self._do(what, cpu, mm, number)
        after = Counter(self.cr3_events())
        self.have_switched |= {write.cpu for write in self.model.writes}
        assert after["writes"] - before["writes"] == len(self.model.writes)
        flushes = sum(not write.kept for write in self.model.writes)
        assert after["flushes"] - before["flushes"] == flushes
        self.compare()

    def _do(self, what: str, cpu: int, mm: int, number: int) -> None:
        ctx_id = self.ctx_id(mm)
        if what == "run":
            run_in_user_mode(self.state, mm)
            self.model.run(cpu, ctx_id)
        elif what == "idle":
            go_idle(self.state, cpu)
            self.model.go_idle(cpu)
        elif what == "system call":
            if self.model.cpus[cpu].in_user_mode:
                enter_kernel(self.state)
                leave_kernel(self.state)
                self.model.enter_kernel(cpu)
                self.model.leave_kernel(cpu)
        elif what == "kernel thread":
            # Runs in the kernel on whatever is loaded, then goes to the kernel's own tables as a hotplug would.
            go_idle(self.state, cpu)
            switch_mm(self.state, INIT)
            self.model.go_idle(cpu)
            self.model.switch_mm(cpu, INIT)
        elif what in ("flush", "flush, tables freed"):
            freed = what != "flush"
            flush_tlb_range(self.state, mm, VADDR, VADDR + number * PAGE_SIZE, int(freed))
            self.model.flush_tlb_mm_range(cpu, ctx_id, number, freed)
        elif what == "flush all":
            flush_tlb_mm(self.state, mm)
            self.model.flush_tlb_mm_range(cpu, ctx_id, None, False)
        elif what == "exit":
            self.state.mm[mm].alive = 0
            retire_mm(self.state, mm)
            self.model.exit(cpu, ctx_id)
            self.machine.revive(mm)

    def cr3_events(self) -> dict[str, int]:
        writes, flushes = self.machine.events(HwEvent.CR3_WRITE, HwEvent.CR3_FLUSH)
        return {"writes": writes, "flushes": flushes}

    def compare(self) -> None:
        """Compare all that Linux keeps for each CPU, CR3 itself, and the counters."""
        contexts = np.asarray(self.state.tlb_context)
        for cpu, expected in enumerate(self.model.cpus):
            record = self.state.cpu[cpu]
            assert self.ctx_id(record.mm) == expected.loaded_mm
            assert (record.asid, bool(record.lazy)) == (expected.loaded_asid, expected.lazy)
            assert (record.cpl == 3) == expected.in_user_mode
            flushes = {asid for asid in range(NR_ASIDS) if record.user_flush_mask >> asid & 1}
            assert flushes == expected.user_flushes
            held = contexts[cpu * NR_ASIDS : (cpu + 1) * NR_ASIDS]
            found = [(int(one["ctx_id"]), int(one["tlb_gen"])) for one in held]
            # The machine writes nobody's as init_mm's: init_mm's generation never changes.
            assert found == [(INIT, 0) if one[0] in (INIT, NOBODY) else one for one in expected.contexts]
            assert record.cr3 == self.cr3(cpu)
        assert self.machine.vm_events(*LINUX_COUNTERS) == [
            self.model.counts[counter.name.lower()] for counter in LINUX_COUNTERS
        ]
        assert self.machine.events(HwEvent.KERNEL_ENTRY) == [self.model.counts["kernel_entry"]]

    def cr3(self, cpu: int) -> int:
        """Return what CR3 must hold."""
        expected = self.model.cpus[cpu]
        mms = {self.ctx_id(mm): mm for mm in range(NR_MMS + 1)}
        is_user_half = self.model.pti and expected.in_user_mode
        top = self.machine.tops(mms[expected.loaded_mm])[1 if is_user_half else 0]
        # Until it first switches, a CPU has the PCID with which it booted.
        has_pcid = self.model.pcid and cpu in self.have_switched
        pcid = expected.loaded_asid + 1 + (USER_BIT if is_user_half else 0) if has_pcid else 0
        return top << PAGE_SHIFT | pcid


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["run"] * 6
            + ["idle"] * 2
            + ["flush"] * 3
            + ["flush, tables freed", "flush all", "system call", "kernel thread", "exit"]
        ),
        st.integers(0, 3),
        st.integers(1, NR_MMS),
        st.sampled_from([1, 2, 33, 34, 100]),
    ),
    max_size=60,
)


@pytest.mark.parametrize(("pcid", "pti"), ALL_FOUR)
@settings(max_examples=40)
@given(nr_cpus=st.integers(1, 4), steps=STEPS)
def test_every_step_does_what_linux_does(
    pcid: bool, pti: bool, nr_cpus: int, steps: list[tuple[str, int, int, int]]
) -> None:
    pair = Pair(nr_cpus, pcid, pti)
    for what, cpu, mm, number in steps:
        pair.step(what, cpu % nr_cpus, mm, number)


# --- single facts ---------------------------------------------------------------------------------------


def walks_of(machine: SmallMachine, mms: Iterable[int]) -> list[int]:
    """Return of each access, by these address spaces in turn, how many walks it made."""
    walks = []
    for mm in mms:
        before = machine.events(*DATA_HITS)[2]
        assert do_access(machine.state, mm, VADDR, READ) == mm
        walks.append(machine.events(*DATA_HITS)[2] - before)
    return walks


@pytest.mark.parametrize("pti", [True, False])
def test_six_address_spaces_keep_their_translations(pti: bool) -> None:
    machine = machine_with(pti=pti)
    six = [1, 2, 3, 4, 5, 6]
    assert walks_of(machine, six) == [1] * 6
    assert walks_of(machine, six * 3) == [0] * 18


@pytest.mark.parametrize("pti", [True, False])
def test_a_seventh_takes_the_next_asid_in_turn(pti: bool) -> None:
    machine = machine_with(pti=pti)
    assert walks_of(machine, [1, 2, 3, 4, 5, 6]) == [1] * 6
    assert machine.state.cpu[0].asid == 0  # the kernel's own tables had it; the first process got 1
    assert walks_of(machine, [7]) == [1]
    assert machine.state.cpu[0].asid == 1
    assert walks_of(machine, [2, 3, 4, 5, 6]) == [0] * 5
    assert walks_of(machine, [1]) == [1]
    assert machine.state.cpu[0].asid == 2


def test_seven_in_turn_never_find_theirs() -> None:
    machine = machine_with()
    assert walks_of(machine, [1, 2, 3, 4, 5, 6, 7] * 3) == [1] * 21


def test_without_pcids_every_switch_walks_anew() -> None:
    machine = machine_with(pcid=False)
    assert walks_of(machine, [1, 2, 1, 2]) == [1] * 4
    assert walks_of(machine, [2, 2]) == [0, 0]


def test_asids_are_a_cpus_own() -> None:
    machine = machine_with(2)
    walks_of(machine, [1, 2])
    machine.run_on(1)
    walks_of(machine, [2, 1])
    assert [machine.state.tlb_context[NR_ASIDS * cpu + 1].ctx_id for cpu in (0, 1)] == [1, 2]


def test_the_next_task_with_the_same_tables_needs_no_write_of_cr3() -> None:
    machine = machine_with()
    run_in_user_mode(machine.state, 1)
    enter_kernel(machine.state)
    before = machine.events(HwEvent.CR3_WRITE, HwEvent.CONTEXT_SWITCH)
    switch_mm(machine.state, 1)
    assert machine.events(HwEvent.CR3_WRITE, HwEvent.CONTEXT_SWITCH) == before


def test_a_kernel_thread_in_between_needs_none_either() -> None:
    machine = machine_with()
    run_in_user_mode(machine.state, 1)
    before = machine.events(HwEvent.CR3_WRITE)
    go_idle(machine.state, 0)
    assert machine.state.cpu[0].lazy == 1
    run_in_user_mode(machine.state, 1)
    assert machine.events(HwEvent.CR3_WRITE) == before
    assert machine.state.cpu[0].lazy == 0


def test_a_lazy_cpu_catches_up_when_its_address_space_goes_on() -> None:
    machine = machine_with(2)
    walks_of(machine, [1])
    go_idle(machine.state, 0)
    machine.run_on(1)
    flush_tlb_page(machine.state, 1, VADDR)
    machine.run_on(0)
    before = machine.events(HwEvent.CR3_FLUSH)
    assert walks_of(machine, [1]) == [1]
    assert machine.events(HwEvent.CR3_FLUSH) == [before[0] + 1]


def test_an_address_space_that_was_flushed_elsewhere_is_dropped_at_the_next_switch_to_it() -> None:
    machine = machine_with(2)
    walks_of(machine, [1, 2])
    machine.run_on(1)
    flush_tlb_page(machine.state, 1, VADDR)
    machine.run_on(0)
    assert walks_of(machine, [2]) == [0]
    assert walks_of(machine, [1, 2, 1]) == [1, 0, 0]


def test_pcid_0_tags_no_process() -> None:
    machine = machine_with(pti=True)
    walks_of(machine, range(1, NR_MMS + 1))
    assert 0 not in {entry.pcid for entry in machine.cached()}
    state = machine.state
    assert [kernel_pcid(state, asid) for asid in range(NR_ASIDS)] == [1, 2, 3, 4, 5, 6]
    assert [user_pcid(state, asid) for asid in range(NR_ASIDS)] == [2049, 2050, 2051, 2052, 2053, 2054]


@pytest.mark.parametrize(
    ("pcid", "pti", "pcids"), [(False, True, (0, 0)), (False, False, (0, 0)), (True, False, (4, 4))]
)
def test_there_are_two_pcids_a_process_only_with_isolation_and_pcids(
    pcid: bool, pti: bool, pcids: tuple[int, int]
) -> None:
    machine = machine_with(pcid=pcid, pti=pti)
    assert (kernel_pcid(machine.state, 3), user_pcid(machine.state, 3)) == pcids


def test_a_switch_between_processes_is_counted_and_charged() -> None:
    machine = machine_with()
    run_in_user_mode(machine.state, 1)
    before = machine.now()
    run_in_user_mode(machine.state, 2)
    run_in_user_mode(machine.state, 2)
    cost = machine.state.cost
    assert machine.now() - before == cost[Cost.CONTEXT_SWITCH] + cost[Cost.CR3_WRITE]
    assert machine.events(HwEvent.CONTEXT_SWITCH) == [2]


def test_the_kernels_own_tables_are_never_lazy() -> None:
    machine = machine_with()
    enter_lazy_tlb(machine.state, 0)
    assert machine.state.cpu[0].lazy == 0


def test_an_address_space_in_an_old_ones_record_inherits_nothing() -> None:
    machine = machine_with()
    walks_of(machine, [1, 2])
    machine.state.mm[1].alive = 0
    retire_mm(machine.state, 1)
    machine.revive(1)
    machine.map(1, VADDR, 9)
    assert do_access(machine.state, 1, VADDR, READ) == 9
    assert forbidden_entries(machine.state) == []
    assert machine.state.current[Current.LAST_CTX_ID] == NR_MMS + 1
