"""A machine whose processes need more memory than it has, and what each of their pages must hold.

Its watermarks are so high that less than two thousand of its frames can be used: tests stay small.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from node import invariants
from node.build import build_state
from node.counters import Current, VmEvent, VmStat
from node.fault.access import touch
from node.hw.pte import PFN_MASK, SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, Pte
from node.joints import direct_reclaim, run_in_user_mode
from node.phys.page import PageFlag
from node.reclaim.lru import NR_LRU_LISTS
from node.spec import MachineSpec, SwapSpec
from node.state import State
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, MIB, NIL, PAGE_SHIFT, PAGE_SIZE, PS_PER_S
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, Gfp
from shared.jit import entry
from tests.models.lru import pages_on
from tests.models.page_tables import NR_LEVELS, TABLE_SHIFT, leaf_entry
from tests.models.swap import check_area

SPEC = MachineSpec(
    memory_bytes=64 * MIB, min_free_kbytes=8_000, overcommit_memory=1, swap=SwapSpec(8 * MIB, "ssd")
)


@entry
def do_touch(state: State, mm: int, vaddr: int, write: int) -> int:
    """Access one page as the current task; return its frame, or NIL."""
    run_in_user_mode(state, mm)
    return touch(state, mm, vaddr, write)


class SwappedMachine:
    """Processes with one area each; ``held`` is what their pages hold, by (mm, page)."""

    def __init__(
        self, spec: MachineSpec = SPEC, device: str | None = None, swap_pages: int | None = None
    ) -> None:
        if device is not None or swap_pages is not None:
            assert spec.swap is not None
            size = spec.swap.size_bytes if swap_pages is None else swap_pages * PAGE_SIZE
            spec = replace(spec, swap=SwapSpec(size, device or spec.swap.device))
        self.state = build_state(spec)
        self.base: dict[int, int] = {}
        self.held: dict[tuple[int, int], int] = {}
        self.serial = 0

    def process(self, nr_pages: int) -> int:
        """Start a process with ``nr_pages`` of memory; return its address space."""
        mm = new_mm(self.state)
        self.base[mm] = mmap(self.state, mm, nr_pages << PAGE_SHIFT, VmFlag.READ | VmFlag.WRITE)
        return mm

    def write(self, mm: int, page: int) -> bool:
        """Write what no other page holds; say whether the kernel let it."""
        self.state.current[Current.MM] = mm
        pfn = do_touch(self.state, mm, self.base[mm] + (page << PAGE_SHIFT), 1)
        if pfn == NIL:
            return False
        self.serial += 1
        self.state.page[pfn].content = self.serial
        self.held[mm, page] = self.serial
        return True

    def read(self, mm: int, page: int) -> int:
        """Return the content that the process sees."""
        self.state.current[Current.MM] = mm
        pfn = do_touch(self.state, mm, self.base[mm] + (page << PAGE_SHIFT), 0)
        assert pfn != NIL
        return int(self.state.page[pfn].content)

    def pte(self, mm: int, page: int) -> int:
        """Return a page's entry, 0 if there is no table for it."""
        vaddr = self.base[mm] + (page << PAGE_SHIFT)
        return leaf_entry(self.state, self.state.mm[mm].pgd_pfn, vaddr)

    def slot(self, mm: int, page: int) -> int | None:
        """Return the slot that a page's entry names, or None."""
        pte = self.pte(mm, page)
        if pte == 0 or pte & Pte.PRESENT:
            return None
        return ~(pte >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK

    def content(self, mm: int, page: int) -> int:
        """Return what a page holds, wherever it is."""
        slot = self.slot(mm, page)
        if slot is None:
            return int(self.state.page[(self.pte(mm, page) >> PAGE_SHIFT) & PFN_MASK].content)
        cached = self.state.swap_slot[slot].cached_pfn
        return int(self.state.page[cached].content if cached else self.state.swap_slot[slot].content)

    def event(self, which: VmEvent) -> int:
        """Return an event counter."""
        return int(self.state.vm_event[which])

    def check(self) -> None:
        """Check contents, lists, the swap area, and that every count is what it counts."""
        for (mm, page), content in self.held.items():
            assert self.content(mm, page) == content
        check_area(self.state)
        mapped: Counter[int] = Counter()
        swapped: Counter[int] = Counter()
        for mm in self.base:
            self._count_entries(mm, mapped, swapped)
        slots = self.state.swap_slot["nr_users"]
        assert {int(i): int(slots[i]) for i in np.flatnonzero(slots)} == swapped
        on_lru = [pfn for which in range(NR_LRU_LISTS) for pfn in pages_on(self.state, which)]
        flags = self.state.page["page_flags"]
        assert sorted(on_lru) == np.flatnonzero(flags & PageFlag.LRU).tolist()
        for pfn in on_lru:
            record = self.state.page[pfn]
            assert record.mapcount == mapped[pfn]
            assert record.refcount == mapped[pfn] + bool(record.page_flags & PageFlag.SWAPCACHE)
        assert self.state.vm_stat[VmStat.NR_ANON_PAGES] == len(mapped)
        assert set(mapped) <= set(on_lru)
        invariants.check(self.state)

    def _count_entries(self, mm: int, mapped: Counter[int], swapped: Counter[int]) -> None:
        """Count what the entries of a process refer to, beside its own counts of them."""
        record = self.state.mm[mm]
        if not record.alive:
            return
        present = 0
        in_swap = 0
        for position in self._leaf_tables(int(record.pgd_pfn), 0):
            for pte in self.state.pt_word[position : position + ENTRIES_PER_TABLE]:
                if not pte:
                    continue
                if not pte & Pte.PRESENT:
                    swapped[~(int(pte) >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK] += 1
                    in_swap += 1
                elif not self.state.page[(int(pte) >> PAGE_SHIFT) & PFN_MASK].page_flags & PageFlag.ZERO_PAGE:
                    mapped[(int(pte) >> PAGE_SHIFT) & PFN_MASK] += 1
                    present += 1
        assert (record.nr_anon, record.nr_swap) == (present, in_swap)

    def _leaf_tables(self, table: int, level: int) -> list[int]:
        first = table << TABLE_SHIFT
        if level == NR_LEVELS - 1:
            return [first]
        nr_entries = ENTRIES_PER_TABLE // 2 if level == 0 else ENTRIES_PER_TABLE  # user space is half of it
        words = self.state.pt_word[first : first + nr_entries]
        lower = [(int(word) >> PAGE_SHIFT) & PFN_MASK for word in words if word & Pte.PRESENT]
        return [position for each in lower for position in self._leaf_tables(each, level + 1)]

    def nr_usable(self) -> int:
        """Return how many more pages fit before allocations reach the low watermark, roughly."""
        return int(self.state.vm_stat[VmStat.NR_FREE_PAGES]) - sum(int(low) for low in self.state.zone["low"])

    def swap_everything_out(self) -> None:
        """Reclaim until no page is in memory, and forget what it cost."""
        while self.state.vm_stat[VmStat.NR_INACTIVE_ANON] + self.state.vm_stat[VmStat.NR_ACTIVE_ANON]:
            direct_reclaim(self.state, 0, GFP_HIGHUSER_MOVABLE | Gfp.NORETRY)
            self.state.current[Current.CLOCK_PS] += PS_PER_S
        self.state.vm_event[:] = 0
