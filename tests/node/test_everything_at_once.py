"""Random steps of everything at once, in little memory: invariants hold after each, contents are right.

Processes write, read, fork, unmap and end; ksmd merges and unmerges; kswapd and direct reclaim swap, on a
flash device or a rotational one, with more swap than is needed or less; the OOM killer ends who is too large;
compaction moves what it can.
"""

import random

import pytest

from node.checkpoint import digest, restore, snapshot
from node.counters import Current, Knob, KsmRun
from node.invariants import check
from node.ksm.ksmd import ksm_do_scan, ksm_set_run
from node.ksm.records import KsmModel
from node.kthread import run_kthreads
from node.phys.compact_control import CompactPriority
from node.phys.compaction import compact_memory, try_to_compact_pages
from node.phys.kcompactd import kcompactd_slice, wakeup_kcompactd
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages
from node.vm.fork import fork_mm
from node.vm.madvise import madvise_mergeable, madvise_unmergeable
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE, PS_PER_MS
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, GFP_KERNEL
from tests.models.address_space import AddressSpace
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways

NR_PAGES = 120
MAX_PROCESSES = 5
NR_STEPS = 60
STEPS = (
    ["write"] * 5
    + ["read"] * 3
    + ["scan"] * 3
    + ["spawn", "fork", "end", "unmap", "merge", "unmerge", "kthreads", "run", "compact", "wake"]
)


class Everything(VmMachine):
    """A machine with few free frames, its processes, and what they should hold."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        swap_pages = self.random.choice([512, 600])
        super().__init__(cpus=2, swap_bytes=swap_pages * PAGE_SIZE, rotational=seed % 4 == 0)
        knob = self.state.knob
        knob[Knob.WATERMARK_BOOST_FACTOR] = 0  # a boost would be more than the few frames that there are
        knob[Knob.KSM_MAX_PAGE_SHARING] = self.random.choice([2, 4, 256])
        knob[Knob.KSM_USE_ZERO_PAGES] = self.random.randrange(2)
        knob[Knob.KSM_MODEL] = self.random.choice([KsmModel.LINUX_6_1, KsmModel.LINUX_6_18])
        knob[Knob.KSM_SMART_SCAN] = self.random.randrange(2)
        for _ in range(self.nr_free() - self.random.choice([260, 400])):
            pfn = alloc_pages(self.state, 0, 0)
            if pfn == NIL:
                break
            self.state.page[pfn].page_flags |= PageFlag.KERNEL
        self.processes: dict[int, tuple[int, AddressSpace]] = {}
        self.ids: dict[int, int] = {}
        self.take("spawn")

    def take(self, what: str) -> None:
        """Take one step, and end whom the OOM killer chose."""
        self.state.current[Current.CPU] = self.random.randrange(2)
        self.state.current[Current.CLOCK_PS] += self.random.choice([1, 100]) * PS_PER_MS
        if what == "spawn":
            if len(self.processes) < MAX_PROCESSES:
                mm = self.spawn()
                first = self.map(mm, NR_PAGES) >> PAGE_SHIFT
                self.processes[mm] = (first, AddressSpace())
                self.processes[mm][1].map(first, NR_PAGES)
        elif self.processes:
            mm = self.random.choice(sorted(self.processes))
            first, model = self.processes[mm]
            getattr(self, f"do_{what}")(mm, first, model)
        for mm in list(self.processes):
            if self.state.mm[mm].alive and self.state.mm[mm].oom_victim:
                self.exit(mm)
            if not self.state.mm[mm].alive:
                del self.processes[mm]

    def do_write(self, mm: int, first: int, model: AddressSpace) -> None:
        value = self.random.randrange(4)
        for vpn in self._some(first):
            if self.write(mm, vpn << PAGE_SHIFT, value) != NIL:
                assert model.access(vpn, value)
            elif vpn in model.mapped:
                return  # no memory

    def do_read(self, mm: int, first: int, model: AddressSpace) -> None:
        for vpn in self._some(first):
            pfn = self.read(mm, vpn << PAGE_SHIFT)
            if pfn != NIL:
                assert model.access(vpn, None)
                content = int(self.state.page[pfn].content)
                assert self.ids.setdefault(model.written.get(vpn, 0), content) == content
            elif vpn in model.mapped:
                return

    def do_fork(self, mm: int, first: int, model: AddressSpace) -> None:
        if len(self.processes) < MAX_PROCESSES:
            self.state.current[Current.MM] = mm
            child = fork_mm(self.state, mm)
            if child != NIL:
                self.processes[child] = (first, model.fork())

    def do_end(self, mm: int, _first: int, _model: AddressSpace) -> None:
        self.exit(mm)

    def do_unmap(self, mm: int, first: int, model: AddressSpace) -> None:
        pages = self._some(first)
        self.unmap(mm, pages.start << PAGE_SHIFT, len(pages))
        model.unmap(pages.start, len(pages))

    def do_merge(self, mm: int, first: int, _model: AddressSpace) -> None:
        pages = self._some(first)
        madvise_mergeable(self.state, mm, pages.start << PAGE_SHIFT, pages.stop << PAGE_SHIFT)

    def do_unmerge(self, mm: int, first: int, _model: AddressSpace) -> None:
        pages = self._some(first)
        madvise_unmergeable(self.state, mm, pages.start << PAGE_SHIFT, pages.stop << PAGE_SHIFT)

    def do_scan(self, _mm: int, _first: int, _model: AddressSpace) -> None:
        self.state.current[Current.MM] = 0
        ksm_do_scan(self.state, self.random.choice([7, 50, 400]))

    def do_kthreads(self, _mm: int, _first: int, _model: AddressSpace) -> None:
        run_kthreads(self.state, self.state.current[Current.CLOCK_PS])

    def do_compact(self, _mm: int, _first: int, _model: AddressSpace) -> None:
        if self.random.randrange(2):
            compact_memory(self.state)
            return
        priority = self.random.choice(list(CompactPriority))
        order = self.random.choice([1, 3, 6, 9])
        try_to_compact_pages(
            self.state, order, self.random.choice([GFP_KERNEL, GFP_HIGHUSER_MOVABLE]), 0, priority
        )

    def do_wake(self, _mm: int, _first: int, _model: AddressSpace) -> None:
        wakeup_kcompactd(self.state, self.random.choice([2, 9]))
        kcompactd_slice(self.state, self.state.current[Current.CLOCK_PS] + 1)

    def do_run(self, _mm: int, _first: int, _model: AddressSpace) -> None:
        ksm_set_run(self.state, self.random.choice([KsmRun.STOP, KsmRun.MERGE, KsmRun.MERGE, KsmRun.UNMERGE]))

    def _some(self, first: int) -> range:
        start = self.random.randrange(NR_PAGES)
        return range(first + start, first + min(NR_PAGES, start + self.random.choice([1, 5, 40, NR_PAGES])))


@pytest.mark.parametrize("seed", range(8))
def test_the_invariants_hold_after_every_step(seed: int) -> None:
    machine = Everything(seed)
    for _ in range(NR_STEPS):
        machine.take(machine.random.choice(STEPS))
        check(machine.state)
    restored, _ = restore(snapshot(machine.state, {}))
    assert digest(restored) == digest(machine.state)
    for mm in list(machine.processes):
        machine.exit(mm)
        check(machine.state)
