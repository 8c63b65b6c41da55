"""Replaying traces: what an access costs and counts, where a process is, and what it is made of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import HwEvent
from node.machine import Machine
from node.phys.page import PageFlag
from node.spec import MachineSpec, WorkSpec
from node.trace import MAX_RUN
from node.traces import areas, pack
from node.used_parts import used_parts
from node.vm.vma import VmFlag
from node.work import WorkKind
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SHIFT, MIB, NIL, PAGE_SHIFT
from shared.trace_kind import TraceKind
from tests.models.recorded_trace import ReplayModel, Run, write_trace

pytestmark = pytest.mark.three_ways

READ, WRITE, EXEC = VmFlag.READ, VmFlag.WRITE, VmFlag.EXEC
NR_WAYS = 2
LONG_NS = 10**9
EXAMPLES = 12  # each builds machines
SMALL_TLB = {"l1_entries": NR_WAYS, "l1_ways": NR_WAYS, "l2_entries": 4, "l2_ways": 2}
DATA_KINDS = (TraceKind.LOAD, TraceKind.STORE, TraceKind.MODIFY)
TEXT: list[Run] = [(0x400, 3, TraceKind.FETCH), (0x403, 2, TraceKind.STORE), (0x401, 1, TraceKind.FETCH)]


def runs_of(kinds: tuple[TraceKind, ...]) -> st.SearchStrategy[list[Run]]:
    run = st.tuples(st.integers(0x400, 0x405), st.integers(1, 5), st.sampled_from(kinds))
    return st.lists(run, min_size=1, max_size=25)


def machine(*works: WorkSpec, **fields: Any) -> Machine:
    spec = MachineSpec(72 * MIB, min_free_kbytes=128, works=works, **fields)
    return Machine(spec.with_hw(tlb=SMALL_TLB))


def area_list(of: Machine, mm: int = 1) -> list[tuple[int, int, int]]:
    found = []
    index = of.state.mm[mm].first_vma
    while index != NIL:
        vma = of.state.vma[index]
        found.append((vma.start >> PAGE_SHIFT, vma.end >> PAGE_SHIFT, vma.vm_flags))
        index = vma.next
    return found


def events(of: Machine, *which: HwEvent) -> int:
    return sum(int(of.state.hw_event[event]) for event in which)


# --- accesses -------------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES)
@given(runs_of(DATA_KINDS), st.integers(1, 3))
def test_faults_are_those_of_a_model_that_makes_each_access(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Run], loops: int
) -> None:
    path = write_trace(tmp_path_factory.mktemp("trace") / "a.npz", runs)
    replayed = machine(WorkSpec(trace=path, loops=loops))
    replayed.run_until(LONG_NS)
    model = ReplayModel(NR_WAYS)
    for _ in range(loops):
        model.replay(runs)
    assert replayed.finished
    assert replayed.state.mm[1].minflt == model.nr_faults
    assert events(replayed, HwEvent.MEMORY_ACCESS) == model.nr_accesses
    assert replayed.counters()["operations"] == model.nr_accesses
    replayed.audit([])


@settings(max_examples=EXAMPLES)
@given(runs_of(DATA_KINDS))
def test_without_faults_hits_are_those_of_a_model_that_makes_each_access(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Run]
) -> None:
    path = write_trace(tmp_path_factory.mktemp("trace") / "a.npz", runs)
    hits, modelled = [], []
    model = ReplayModel(NR_WAYS)
    model.replay(runs)  # all faults, which take the TLB's entries for the kernel
    for loops in (2, 3):
        replayed = machine(WorkSpec(trace=path, loops=loops))
        replayed.run_until(LONG_NS)
        hits.append(events(replayed, HwEvent.TLB_L1_HIT))
        model.replay(runs)
        modelled.append(model.nr_hits)
    assert hits[1] - hits[0] == modelled[1] - modelled[0]


def without_positions(of: Machine) -> list[Any]:
    """Return all of a machine but how its trace is cut into runs, and how often the TLB was looked at."""
    state = of.state
    tables: list[Any] = [
        part.tobytes()
        for name in state.LAYOUT
        if name not in {"trace_run", "work", "cpu", "tlb"}
        for part in used_parts(state, name)
    ]
    # An entry's place tells which were replaced: a wrong order of last use would show.
    return [*tables, state.tlb["key"].tolist(), state.cpu[0].clock_ps, state.work[0].counter]


@settings(max_examples=EXAMPLES)
@given(runs_of(tuple(TraceKind)))
def test_a_run_is_its_accesses_made_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Run]
) -> None:
    folder = tmp_path_factory.mktemp("trace")
    singly = [(page, 1, kind) for page, count, kind in runs for _ in range(count)]
    replayed = []
    for name, cut in (("runs", runs), ("singly", singly)):
        replayed.append(machine(WorkSpec(trace=write_trace(folder / f"{name}.npz", cut))))
        replayed[-1].run_until(LONG_NS)
    assert without_positions(replayed[0]) == without_positions(replayed[1])


def test_a_long_run_is_several_operations(tmp_path: Path) -> None:
    path = write_trace(
        tmp_path / "a.npz", [(0x400, 2 * MAX_RUN + 1, TraceKind.LOAD), (0x401, MAX_RUN, TraceKind.STORE)]
    )
    replayed = machine(WorkSpec(trace=path, windows=(0,)))
    assert replayed.state.work[0].nr_runs == 4
    replayed.run_until(LONG_NS)
    assert replayed.counters()["operations"] == 3 * MAX_RUN + 1


def test_windows_are_replayed_as_chosen(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "a.npz", [(0x400, 5, TraceKind.LOAD)], [(0x401, 2, TraceKind.LOAD)] * 3)
    done = []
    for windows in ((0,), (1,), (0, 1)):
        replayed = machine(WorkSpec(trace=path, windows=windows, loops=2))
        replayed.run_until(LONG_NS)
        done.append((replayed.counters()["operations"], int(replayed.state.mm[1].minflt)))
    assert done == [(10, 1), (12, 1), (22, 2)]


def test_stores_leave_contents_that_differ(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "a.npz", [(page, 1, TraceKind.STORE) for page in range(0x400, 0x420)])
    replayed = machine(WorkSpec(trace=path), WorkSpec(trace=path))
    replayed.run_until(LONG_NS)
    page = replayed.state.page
    written = page["content"][page["page_flags"] & PageFlag.ANON != 0]
    assert len(written) == len(set(written.tolist())) == 2 * 0x20


def test_without_end_a_trace_begins_again(tmp_path: Path) -> None:
    replayed = machine(WorkSpec(trace=write_trace(tmp_path / "a.npz", TEXT), loops=0))
    replayed.run_until(10**6)
    assert not replayed.finished
    assert replayed.counters()["operations"] > 1000


def test_a_process_without_memory_ends(tmp_path: Path) -> None:
    runs = [(page, 1, TraceKind.STORE) for page in range(0x1000, 0x1000 + 9000)]
    replayed = machine(WorkSpec(trace=write_trace(tmp_path / "a.npz", runs)))
    replayed.run_until(LONG_NS)
    assert replayed.finished
    assert replayed.state.work[0].kind == WorkKind.ENDED
    assert replayed.counters()["oom_kill"] == 1
    replayed.audit([])


# --- going on -------------------------------------------------------------------------------------------


def test_a_machine_restored_in_the_middle_ends_as_one_that_went_on(tmp_path: Path) -> None:
    runs = [(0x400 + (7 * i) % 13, 1 + i % 4, TraceKind(i * i % 4)) for i in range(400)]
    path = write_trace(tmp_path / "a.npz", runs)
    works = (WorkSpec(trace=path, loops=50), WorkSpec(trace=path, windows=(0, 1), loops=25, cpu=1))
    unbroken, broken = machine(*works, cpus=2), machine(*works, cpus=2)
    for until_ns in (41_000, 63_000, 81_000):
        unbroken.run_until(until_ns)
        broken.run_until(until_ns)
        assert 0 < broken.state.work[0].run < len(runs)
        kept = broken.snapshot()
        broken = machine(WorkSpec(trace=path))
        broken.restore(kept)
    for of in (unbroken, broken):
        of.run_until(LONG_NS)
        assert of.finished
        assert of.counters()["operations"] == 2 * 50 * sum(count for _, count, _ in runs)
    assert broken.digest() == unbroken.digest()


# --- address spaces -------------------------------------------------------------------------------------


def test_areas_are_adjacent_pages_with_equal_rights(tmp_path: Path) -> None:
    first: list[Run] = [
        (0x400, 1, TraceKind.FETCH),
        (0x401, 1, TraceKind.FETCH),
        (0x402, 1, TraceKind.LOAD),
        (0x403, 1, TraceKind.STORE),
        (0x404, 1, TraceKind.MODIFY),
        (0x406, 1, TraceKind.STORE),
        (0x500, 1, TraceKind.FETCH),
    ]
    steady: list[Run] = [
        (0x401, 1, TraceKind.LOAD),
        (0x500, 1, TraceKind.STORE),
        (0x7FFFFF, 1, TraceKind.LOAD),
    ]
    replayed = machine(WorkSpec(trace=write_trace(tmp_path / "a.npz", first, steady)))
    assert area_list(replayed) == [
        (0x400, 0x402, READ | EXEC),
        (0x402, 0x403, READ),
        (0x403, 0x405, READ | WRITE),
        (0x406, 0x407, READ | WRITE),
        (0x500, 0x501, READ | WRITE | EXEC),
        (0x7FFFFF, 0x800000, READ),
    ]


def test_huge_areas_are_whole_regions_with_the_rights_of_all_their_pages(tmp_path: Path) -> None:
    runs: list[Run] = [
        (0x400, 1, TraceKind.FETCH),
        (0x5FF, 1, TraceKind.STORE),
        (0x600, 1, TraceKind.LOAD),
        (0x800, 1, TraceKind.LOAD),
        (0xC00, 1, TraceKind.LOAD),
    ]
    packed = pack(write_trace(tmp_path / "a.npz", runs), (1,))
    assert [
        (start >> PAGE_SHIFT, end >> PAGE_SHIFT, rights)
        for start, end, rights in areas(packed, HUGE_PAGE_SHIFT)
    ] == [
        (0x400, 0x600, READ | WRITE | EXEC),
        (0x600, 0xA00, READ),
        (0xC00, 0xE00, READ),
    ]


def test_with_huge_pages_nothing_faults_and_stores_reach_their_frames(tmp_path: Path) -> None:
    runs: list[Run] = [(0x400, 4, TraceKind.FETCH), (0x5F3, 2, TraceKind.STORE), (0x807, 1, TraceKind.MODIFY)]
    replayed = machine(WorkSpec(trace=write_trace(tmp_path / "a.npz", runs), huge_pages="2M", loops=3))
    replayed.run_until(LONG_NS)
    assert replayed.state.mm[1].minflt == 0
    assert events(replayed, HwEvent.MEMORY_ACCESS) == 3 * 7
    blocks = np.flatnonzero(
        replayed.state.page["mapcount"] * (replayed.state.page["page_flags"] == PageFlag.HUGETLB)
    )
    written = np.flatnonzero(
        replayed.state.page["content"] * (replayed.state.page["page_flags"] == PageFlag.HUGETLB)
    )
    assert len(blocks) == 2
    assert sorted((written % ENTRIES_PER_TABLE).tolist()) == [
        0x807 % ENTRIES_PER_TABLE,
        0x5F3 % ENTRIES_PER_TABLE,
    ]
    assert set((written // ENTRIES_PER_TABLE).tolist()) == set((blocks // ENTRIES_PER_TABLE).tolist())


def test_processes_with_the_same_windows_share_the_runs(tmp_path: Path) -> None:
    paths = [write_trace(tmp_path / f"{name}.npz", TEXT, TEXT[:2]) for name in "ab"]
    replayed = machine(
        WorkSpec(trace=paths[0], windows=(0,)),
        WorkSpec(workload="uniform", memory_bytes=MIB, operations=1),
        WorkSpec(trace=paths[1], windows=(0, 1)),
        WorkSpec(trace=paths[0], windows=(0,)),
        WorkSpec(trace=paths[0], windows=(1,)),
    )
    places = [
        (work["first_run"], work["nr_runs"], work["first_page"]) for work in np.asarray(replayed.state.work)
    ]
    assert places == [(0, 3, 0), (0, 0, 0), (3, 5, 3), (0, 3, 0), (8, 2, 6)]
    assert len(replayed.state.trace_run) == 10
    assert replayed.state.trace_page[:].tolist() == [0x400, 0x401, 0x403] * 3
    replayed.run_until(LONG_NS)
    assert np.asarray(replayed.state.work)["counter"].tolist() == [6, 1, 11, 6, 5]


# --- what is refused ------------------------------------------------------------------------------------


def test_a_trace_that_cannot_be_read_names_its_process(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_text("no trace")
    good = WorkSpec(trace=write_trace(tmp_path / "a.npz", TEXT))
    with pytest.raises(ValueError, match=r"^processes\.1\.trace: \S+bad\.npz: not a whole \.npz file"):
        machine(good, WorkSpec(trace=str(tmp_path / "bad.npz")))
    with pytest.raises(ValueError, match=r"^processes\.0\.trace: \S+absent\.npz: No such file or directory$"):
        machine(WorkSpec(trace=str(tmp_path / "absent.npz")))


def test_huge_pages_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    runs: list[Run] = [(0x400 + 512 * region, 1, TraceKind.LOAD) for region in range(30)]
    path = write_trace(tmp_path / "a.npz", runs)
    with pytest.raises(
        ValueError, match=r"^processes\.0\.huge_pages: the machine has no free 2 MiB block for 0x"
    ):
        machine(WorkSpec(trace=path, huge_pages="2M"))


def test_a_machine_without_the_addresses_or_the_size_of_page_refuses(tmp_path: Path) -> None:
    low = write_trace(tmp_path / "low.npz", TEXT)
    high = write_trace(tmp_path / "high.npz", [*TEXT, (0x1FFF000, 1, TraceKind.LOAD)])
    small = MachineSpec(72 * MIB).with_hw(paging="32bit")
    with pytest.raises(
        ValueError, match=r"^processes\.0\.trace: \S+high\.npz uses addresses up to 0x1fff001000, but "
    ):
        Machine(replace(small, works=(WorkSpec(trace=high),)))
    with pytest.raises(ValueError, match=r"^processes\.0\.huge_pages: 2M: paging mode 32bit has none$"):
        Machine(replace(small, works=(WorkSpec(trace=low, huge_pages="2M"),)))
    without = MachineSpec(72 * MIB).with_hw(paging="none")
    with pytest.raises(
        ValueError, match=r"low\.npz needs its own addresses, and paging mode none gives none$"
    ):
        Machine(replace(without, works=(WorkSpec(trace=low),)))
    replayed = Machine(replace(small, works=(WorkSpec(trace=low),)))
    replayed.run_until(LONG_NS)
    assert replayed.counters()["operations"] == 6


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "a.npz", TEXT)
    assert len(pack(path, (1,)).runs) == 3
    write_trace(tmp_path / "a.npz", TEXT * 2)
    assert len(pack(path, (1,)).runs) == 6
