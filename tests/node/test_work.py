"""Workloads: which pages they use, how often, and what they write."""

from itertools import pairwise

import numpy as np
import pytest

from node.counters import Current, HwEvent
from node.hw.cost import Cost
from node.hw.pte import Pte
from node.kmap.entry import run_in_user_mode
from node.work import (
    BUCKET_WORDS,
    BUCKETS_AT,
    HEADER_BUCKETS,
    MAX_ZIPF_WORDS,
    SHARE_BITS,
    WorkKind,
    zipf_table,
)
from shared.constants import INT64_MAX, PAGE_SHIFT
from shared.streams import Purpose, Stream
from shared.wrap64 import to_signed
from tests.models.zipf import bucket_of, rank_shares
from tests.node.hw.small_machine import SmallMachine
from tests.node.work_entries import do_run_work, do_zipf_page

VADDR = 0x10_0000_0000
NR_PAGES = 20


def buckets(table: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the ends and first ranks of a table's buckets, the ranks' own end last."""
    words = table[BUCKETS_AT:].tolist()
    return words[0::BUCKET_WORDS][:-1], words[1::BUCKET_WORDS]


def machine_with_work(**fields: int) -> SmallMachine:
    """Return a machine whose only workload has NR_PAGES pages, in frames 1 and up."""
    table = zipf_table(NR_PAGES, "0.99", 3)
    machine = SmallMachine(nr_works=1, zipf_words=len(table))
    machine.state.zipf[:] = table
    for page in range(NR_PAGES):
        machine.map(1, VADDR + (page << PAGE_SHIFT), page + 1)
    work = machine.state.work[0]
    values = {"seed": 9, "operations": 1000, "vaddr": VADDR, "nr_pages": NR_PAGES, "mm": 1} | fields
    for name, value in values.items():
        setattr(work, name, value)
    run_in_user_mode(machine.state, 1)
    return machine


def used_pages(machine: SmallMachine) -> list[int]:
    return [page for page in range(NR_PAGES) if machine.pte(1, VADDR + (page << PAGE_SHIFT)) & Pte.ACCESSED]


def contents(machine: SmallMachine) -> list[int]:
    return [int(content) for content in machine.state.page["content"][1 : NR_PAGES + 1]]


# --- Zipf tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nr_pages", "exponent"), [(1, "0.99"), (700, "0.5"), (5000, "1"), (40_000, "1.2"), (3000, "0")]
)
def test_a_tables_shares_follow_zipfs_law(nr_pages: int, exponent: str) -> None:
    table = zipf_table(nr_pages, exponent, 1)
    ends, first_ranks = buckets(table)
    assert len(ends) == table[HEADER_BUCKETS]
    assert first_ranks[-1] == nr_pages
    cumulative = np.cumsum(rank_shares(nr_pages, float(exponent)))
    for end, behind in zip(ends, first_ranks[1:], strict=True):
        assert end / 2**SHARE_BITS == pytest.approx(cumulative[behind - 1], abs=1e-6)


def test_a_tables_size_is_bounded() -> None:
    assert len(zipf_table(2**31, "0.99", 1)) <= MAX_ZIPF_WORDS


def test_buckets_are_single_ranks_first_and_narrow_later() -> None:
    _, first_ranks = buckets(zipf_table(1_000_000, "0.99", 1))
    assert first_ranks[:1024] == list(range(1024))
    assert all(after - rank <= max(rank / 512, 1) for rank, after in pairwise(first_ranks))


@pytest.mark.parametrize("bad", ["", "x", "-1", "8.5", "nan", "inf"])
def test_an_exponent_that_is_no_number_of_0_to_8_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="zipf: exponent"):
        zipf_table(10, bad, 1)


def test_a_workload_without_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="zipf: 0 pages"):
        zipf_table(0, "0.99", 1)


@pytest.mark.three_ways
def test_a_draw_gives_the_page_of_the_rank_that_bisection_finds() -> None:
    nr_pages = 5000
    table = zipf_table(nr_pages, "0.8", 4)
    machine = SmallMachine(zipf_words=len(table) + 7)
    machine.state.zipf[7:] = table
    ends, first_ranks = buckets(table)
    _, multiplier, offset = table[:3].tolist()
    stream = Stream(2, 0, Purpose.TEST)
    for _ in range(300):
        draw = to_signed(stream.word())
        bucket = bucket_of(ends, (draw % 2**64) >> (64 - SHARE_BITS))
        pages = {
            (rank * multiplier + offset) % nr_pages
            for rank in range(first_ranks[bucket], first_ranks[bucket + 1])
        }
        assert do_zipf_page(machine.state, 7, nr_pages, draw) in pages


@pytest.mark.parametrize("nr_pages", [1, 2, 10, 4096, 9973, 30_030])
def test_no_two_ranks_share_a_page(nr_pages: int) -> None:
    _, multiplier, offset = zipf_table(nr_pages, "1", 5)[:3].tolist()
    assert len({(rank * multiplier + offset) % nr_pages for rank in range(nr_pages)}) == nr_pages


def test_seeds_put_the_hottest_page_in_different_places() -> None:
    assert len({int(zipf_table(1000, "0.99", seed)[2]) for seed in range(20)}) > 15


# --- operations -----------------------------------------------------------------------------------------


@pytest.mark.three_ways
def test_a_sequential_workload_uses_its_pages_in_order() -> None:
    machine = machine_with_work(kind=WorkKind.SEQUENTIAL, operations=7)
    do_run_work(machine.state, 0, INT64_MAX)
    assert used_pages(machine) == [0, 1, 2, 3, 4, 5, 6]
    machine.state.work[0].operations = 3 * NR_PAGES
    do_run_work(machine.state, 0, INT64_MAX)
    assert used_pages(machine) == list(range(NR_PAGES))
    assert machine.state.work[0].counter == 3 * NR_PAGES


@pytest.mark.three_ways
def test_a_syscall_workload_makes_a_system_call_before_each_access() -> None:
    spent = []
    for kind in (WorkKind.SEQUENTIAL, WorkKind.SYSCALL):
        machine = machine_with_work(kind=kind, operations=7)
        do_run_work(machine.state, 0, INT64_MAX)
        assert used_pages(machine) == [0, 1, 2, 3, 4, 5, 6]
        assert machine.events(HwEvent.SYSCALL) == [7 if kind == WorkKind.SYSCALL else 0]
        spent.append(machine.state.current[Current.CLOCK_PS])
    assert spent[1] - spent[0] == 7 * machine.state.cost[Cost.SYSCALL]


@pytest.mark.three_ways
@pytest.mark.parametrize("kind", [WorkKind.UNIFORM, WorkKind.ZIPF])
def test_a_random_workload_comes_to_every_page(kind: WorkKind) -> None:
    machine = machine_with_work(kind=kind)
    do_run_work(machine.state, 0, INT64_MAX)
    assert used_pages(machine) == list(range(NR_PAGES))
    assert machine.events(HwEvent.MEMORY_ACCESS) == [1000]


@pytest.mark.three_ways
@pytest.mark.parametrize(("percent", "low", "high"), [(0, 0, 0), (100, NR_PAGES, NR_PAGES), (30, 1, 12)])
def test_the_write_percentage_is_kept(percent: int, low: int, high: int) -> None:
    machine = machine_with_work(kind=WorkKind.SEQUENTIAL, operations=NR_PAGES, write_percent=percent)
    do_run_work(machine.state, 0, INT64_MAX)
    dirty = [page for page in range(NR_PAGES) if machine.pte(1, VADDR + (page << PAGE_SHIFT)) & Pte.DIRTY]
    assert low <= len(dirty) <= high
    assert [page for page, content in enumerate(contents(machine)) if content] == dirty


@pytest.mark.three_ways
def test_every_write_leaves_another_content() -> None:
    machine = machine_with_work(kind=WorkKind.SEQUENTIAL, operations=NR_PAGES, write_percent=100)
    do_run_work(machine.state, 0, INT64_MAX)
    first = contents(machine)
    machine.state.work[0].operations = 2 * NR_PAGES
    do_run_work(machine.state, 0, INT64_MAX)
    assert len({*first, *contents(machine)}) == 2 * NR_PAGES


@pytest.mark.three_ways
def test_a_workload_stopped_and_resumed_does_what_an_unbroken_one_does() -> None:
    machines = [machine_with_work(kind=WorkKind.ZIPF, write_percent=50) for _ in range(2)]
    do_run_work(machines[0].state, 0, INT64_MAX)
    while machines[1].state.work[0].counter < 1000:
        do_run_work(machines[1].state, 0, machines[1].state.current[Current.CLOCK_PS] + 1)
    assert contents(machines[0]) == contents(machines[1])
    assert machines[0].state.current[Current.CLOCK_PS] == machines[1].state.current[Current.CLOCK_PS]


@pytest.mark.three_ways
def test_thinking_takes_time_after_each_operation() -> None:
    spent = []
    for think_ps in (0, 5000):
        machine = machine_with_work(kind=WorkKind.UNIFORM, think_ps=think_ps)
        do_run_work(machine.state, 0, INT64_MAX)
        spent.append(machine.state.current[Current.CLOCK_PS])
    assert spent[1] - spent[0] == 1000 * 5000
