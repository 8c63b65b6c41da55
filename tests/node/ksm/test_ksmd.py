"""ksmd against an obvious model, on random writes, unmappings and scans, and against perfect sharing."""

from collections import Counter
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import invariants, procfs
from node.build import build_state
from node.counters import Current, Knob, KsmRun, Request, VmStat
from node.ksm.ksmd import ksm_do_scan, ksm_set_run, ksmd_slice
from node.kthread import ASLEEP, Kthread
from node.spec import KsmSpec, MachineSpec
from node.state import State
from node.touch import Fill, become, fill_pages
from node.vm.madvise import madvise_mergeable
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap, munmap
from node.vm.unmap import exit_mmap
from node.vm.vma import VmFlag
from shared.constants import MIB, PAGE_SIZE, PS_PER_MS
from tests.models.ksm import ModelKsm

pytestmark = pytest.mark.three_ways

NR_PROCESSES: Final = 3
NR_PAGES: Final = 12
NR_CONTENTS: Final = 4
COUNTERS: Final = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
ALL_PAGES: Final = 1 << 30


def free_pages_of(state: State) -> int:
    """Return the free frames, those on per-CPU lists included."""
    return int(state.vm_stat[VmStat.NR_FREE_PAGES] + state.pcp["count"].sum())


class Simulated:
    """Processes with one mergeable mapping each on a real State."""

    def __init__(self, ksm: KsmSpec, nr_pages: int = NR_PAGES) -> None:
        self.state: State = build_state(MachineSpec(128 * MIB, ksm=ksm))
        self.processes: list[tuple[int, int]] = []
        for _ in range(NR_PROCESSES):
            mm = new_mm(self.state)
            become(self.state, mm)
            start = mmap(self.state, mm, nr_pages * PAGE_SIZE, VmFlag.READ | VmFlag.WRITE)
            madvise_mergeable(self.state, mm, start, start + nr_pages * PAGE_SIZE)
            self.processes.append((mm, start))

    def write(self, process: int, vpn: int, content: int, nr_pages: int = 1) -> None:
        mm, start = self.processes[process]
        become(self.state, mm)
        request = self.state.request
        request[Request.A0] = start + vpn * PAGE_SIZE
        request[Request.A1] = nr_pages
        request[Request.A5] = content
        request[Request.A6] = 0
        request[Request.A7] = 0
        assert fill_pages(self.state, mm, Fill.SAME, vpn) == nr_pages

    def unmap(self, process: int, vpn: int) -> None:
        mm, start = self.processes[process]
        munmap(self.state, mm, start + vpn * PAGE_SIZE, start + (vpn + 1) * PAGE_SIZE)

    def full_scan(self) -> None:
        self.state.current[Current.MM] = 0
        ksm_do_scan(self.state, ALL_PAGES)

    def counters(self) -> dict[str, int]:
        values = procfs.ksm(self.state)
        return {name: values[name] for name in COUNTERS}


WRITES = st.tuples(
    st.just("write"),
    st.integers(0, NR_PROCESSES - 1),
    st.integers(0, NR_PAGES - 1),
    st.integers(1, NR_CONTENTS),
)
UNMAPS = st.tuples(
    st.just("unmap"), st.integers(0, NR_PROCESSES - 1), st.integers(0, NR_PAGES - 1), st.just(0)
)
SCANS = st.tuples(st.just("scan"), st.just(0), st.just(0), st.just(0))


@settings(max_examples=15)
@given(
    st.sampled_from([2, 3, 5, 256]),
    st.lists(WRITES | WRITES | WRITES | UNMAPS | SCANS, min_size=20, max_size=90),
)
def test_full_scans_count_as_the_model_does(max_sharing: int, steps: list[tuple[str, int, int, int]]) -> None:
    simulated = Simulated(KsmSpec(max_page_sharing=max_sharing, stable_node_chains_prune_millisecs=1_000_000))
    model = ModelKsm(max_sharing, [{} for _ in range(NR_PROCESSES)])
    unmapped = set()
    for what, process, vpn, content in steps:
        if what == "scan":
            simulated.full_scan()
            model.full_scan()
            assert simulated.counters() == model.counters()
            invariants.check(simulated.state)
        elif (process, vpn) in unmapped:
            continue
        elif what == "write":
            simulated.write(process, vpn, content)
            model.write(process, vpn, content)
        else:
            unmapped.add((process, vpn))
            simulated.unmap(process, vpn)
            model.unmap(process, vpn)
    invariants.check(simulated.state)


@given(st.lists(st.integers(0, 9), min_size=NR_PROCESSES * NR_PAGES, max_size=NR_PROCESSES * NR_PAGES))
def test_calm_memory_is_shared_perfectly_after_two_scans(contents: list[int]) -> None:
    simulated = Simulated(KsmSpec())
    for index, content in enumerate(contents):
        simulated.write(index // NR_PAGES, index % NR_PAGES, content)
    simulated.full_scan()
    simulated.full_scan()
    copies = [count for count in Counter(contents).values() if count > 1]
    assert simulated.counters() == {
        "pages_shared": len(copies),
        "pages_sharing": sum(copies) - len(copies),
        "pages_unshared": len(contents) - sum(copies),
        "pages_volatile": 0,
    }
    invariants.check(simulated.state)


def test_unmerging_gives_everyone_a_page_of_its_own_and_forgets_all() -> None:
    simulated = Simulated(KsmSpec())
    for process in range(NR_PROCESSES):
        simulated.write(process, 0, 7, NR_PAGES)
    simulated.full_scan()
    simulated.full_scan()
    before = procfs.vmstat(simulated.state)["nr_anon_pages"]
    assert before == 1
    ksm_set_run(simulated.state, KsmRun.UNMERGE)
    assert procfs.vmstat(simulated.state)["nr_anon_pages"] == NR_PROCESSES * NR_PAGES
    assert simulated.counters() == dict.fromkeys(COUNTERS, 0)
    invariants.check(simulated.state)


def test_an_exit_leaves_its_items_to_ksmd_which_frees_them_at_the_next_scan() -> None:
    simulated = Simulated(KsmSpec())
    for process in range(NR_PROCESSES):
        simulated.write(process, 0, 7, NR_PAGES)
    simulated.full_scan()
    simulated.full_scan()
    free = free_pages_of(simulated.state)
    exit_mmap(simulated.state, simulated.processes[0][0])
    assert simulated.counters()["pages_sharing"] == NR_PROCESSES * NR_PAGES - 1
    simulated.full_scan()
    assert simulated.counters()["pages_sharing"] == (NR_PROCESSES - 1) * NR_PAGES - 1
    assert free_pages_of(simulated.state) >= free
    invariants.check(simulated.state)


def test_ksmd_scans_a_batch_each_time_it_wakes_on_a_tick() -> None:
    simulated = Simulated(KsmSpec(pages_to_scan=10, sleep_millisecs=20))
    simulated.write(0, 0, 7, NR_PAGES)
    state = simulated.state
    state.current[Current.CLOCK_PS] = 0
    ksm_set_run(state, KsmRun.MERGE)
    ksmd_slice(state, 20 * PS_PER_MS)
    assert procfs.ksm(state)["pages_scanned"] == 10
    # Five ticks of 4 ms for 20 ms, and the rest of the one that had begun.
    assert state.kthread[Kthread.KSMD].clock_ps == 24 * PS_PER_MS


def test_a_slice_that_ends_early_goes_on_with_the_same_batch() -> None:
    whole = Simulated(KsmSpec(pages_to_scan=10))
    whole.write(0, 0, 7, NR_PAGES)
    sliced = Simulated(KsmSpec(pages_to_scan=10))
    sliced.write(0, 0, 7, NR_PAGES)
    for one in (whole, sliced):
        one.state.current[Current.CLOCK_PS] = 0
        ksm_set_run(one.state, KsmRun.MERGE)
    ksmd_slice(whole.state, 20 * PS_PER_MS)
    while procfs.ksm(sliced.state)["pages_scanned"] < 10:
        ksmd_slice(sliced.state, int(sliced.state.current[Current.CLOCK_PS]) + 1)
    assert procfs.ksm(sliced.state) == procfs.ksm(whole.state)
    assert sliced.state.kthread[Kthread.KSMD].clock_ps == whole.state.kthread[Kthread.KSMD].clock_ps


def test_ksmd_sleeps_for_good_when_nothing_is_mergeable_or_run_is_zero() -> None:
    state = build_state(MachineSpec(128 * MIB))
    ksm_set_run(state, KsmRun.MERGE)
    ksmd_slice(state, PS_PER_MS)
    assert state.kthread[Kthread.KSMD].clock_ps == ASLEEP


def test_zero_pages_go_to_the_shared_zero_page_and_are_counted_since_6_18() -> None:
    simulated = Simulated(KsmSpec(model="6.18", use_zero_pages=1))
    simulated.write(0, 0, 0, NR_PAGES)
    simulated.full_scan()
    simulated.full_scan()
    assert procfs.ksm(simulated.state)["ksm_zero_pages"] == NR_PAGES
    assert procfs.vmstat(simulated.state)["nr_anon_pages"] == 0
    simulated.write(0, 0, 5, 3)
    assert procfs.ksm(simulated.state)["ksm_zero_pages"] == NR_PAGES - 3
    invariants.check(simulated.state)


def test_a_changed_page_equal_to_a_merged_one_is_merged_at_once_by_6_1_and_a_scan_later_by_6_18() -> None:
    sharing = {}
    for model in ("6.1", "6.18"):
        simulated = Simulated(KsmSpec(model=model))
        simulated.write(0, 0, 7, 2)
        simulated.full_scan()
        simulated.full_scan()
        simulated.write(1, 0, 7)
        simulated.full_scan()
        sharing[model] = [simulated.counters()["pages_sharing"]]
        simulated.full_scan()
        sharing[model].append(simulated.counters()["pages_sharing"])
    assert sharing == {"6.1": [2, 2], "6.18": [1, 2]}


def test_smart_scan_skips_pages_that_stay_alone_more_and_more_often() -> None:
    simulated = Simulated(KsmSpec(model="6.18", smart_scan=1))
    for vpn in range(NR_PAGES):
        simulated.write(0, vpn, 100 + vpn)
    skipped = []
    for _ in range(12):
        simulated.full_scan()
        skipped.append(procfs.ksm(simulated.state)["pages_skipped"] // NR_PAGES)
    # Ages 0-2 are scanned; then after each scan 1, 1, 2, 4 ... are left out.
    assert skipped == [0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6]


def test_pages_of_equal_checksum_are_deemed_equal_if_the_scenario_says_so() -> None:
    simulated = Simulated(KsmSpec(compare="checksum"))
    assert simulated.state.knob[Knob.KSM_COMPARE] == 1
    simulated.write(0, 0, 7, 2)
    simulated.full_scan()
    simulated.full_scan()
    assert simulated.counters()["pages_sharing"] == 1
