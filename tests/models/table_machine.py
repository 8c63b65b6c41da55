"""A 32-bit machine that swaps page tables too, and what each page of its processes must hold.

As ``SwappedMachine``, but with processes whose areas are where a test wants them: a table maps ``REGION`` bytes.
"""

from node import invariants
from node.build import build_state
from node.counters import Current, HwEvent, VmEvent, VmStat
from node.fault.access import touch
from node.hw.pte import PFN_MASK, SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, Pte
from node.joints import direct_reclaim, run_in_user_mode
from node.spec import MachineSpec, SwapSpec
from node.state import State
from node.vm.fork import fork_mm
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap_fixed, munmap
from node.vm.unmap import exit_mmap
from shared.constants import MIB, NIL, PAGE_SHIFT, PAGE_SIZE, PS_PER_S
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, Gfp
from shared.jit import entry

REGION = 4 * MIB
PAGES_OF_REGION = REGION // PAGE_SIZE
FIRST = 16 * REGION  # where areas begin
PGD_SHIFT = 22
TABLE_SHIFT = 10


def table_spec(swap_bytes: int = 64 * MIB, device: str = "ssd") -> MachineSpec:
    """Return a machine of which fewer than fifteen hundred frames can be used, without readahead."""
    spec = MachineSpec(
        memory_bytes=64 * MIB,
        min_free_kbytes=11_000,
        page_cluster=0,
        overcommit_memory=1,
        swap=SwapSpec(swap_bytes, device),
        pageable_tables=True,
    )
    return spec.with_hw(paging="32bit")


@entry
def touch_of(state: State, mm: int, vaddr: int, write: int) -> int:
    """Access one page as the current task; return its frame, or NIL."""
    run_in_user_mode(state, mm)
    return touch(state, mm, vaddr, write)


class TableMachine:
    """Processes with regions; ``held`` is what their pages hold, by (mm, address)."""

    def __init__(self, spec: MachineSpec | None = None) -> None:
        self.state = build_state(spec or table_spec())
        self.held: dict[tuple[int, int], int] = {}
        self.serial = 0

    # --- steps ------------------------------------------------------------------------------------------

    def process(self, nr_regions: int) -> int:
        """Start a process with whole regions from ``FIRST`` on; return its address space."""
        mm = new_mm(self.state)
        self.map(mm, FIRST, nr_regions * PAGES_OF_REGION)
        return mm

    def map(self, mm: int, vaddr: int, nr_pages: int) -> None:
        """Map pages where nothing is."""
        assert mmap_fixed(self.state, mm, vaddr, vaddr + nr_pages * PAGE_SIZE) != NIL

    def try_write(self, mm: int, vaddr: int) -> bool:
        """Write what no other page holds; say whether the kernel let it."""
        self.state.current[Current.MM] = mm
        pfn = touch_of(self.state, mm, vaddr, 1)
        if pfn == NIL:
            return False
        self.serial += 1
        self.state.page[pfn].content = self.serial
        self.held[mm, vaddr] = self.serial
        return True

    def write(self, mm: int, vaddr: int, nr_pages: int = 1) -> None:
        """Write pages from ``vaddr`` on."""
        for page in range(nr_pages):
            assert self.try_write(mm, vaddr + page * PAGE_SIZE)

    def read(self, mm: int, vaddr: int) -> int:
        """Return the content that the process sees, or NIL: a signal."""
        self.state.current[Current.MM] = mm
        pfn = touch_of(self.state, mm, vaddr, 0)
        return NIL if pfn == NIL else int(self.state.page[pfn].content)

    def unmap(self, mm: int, vaddr: int, nr_pages: int) -> int:
        """Unmap pages; return how many were there."""
        for page in range(nr_pages):
            self.held.pop((mm, vaddr + page * PAGE_SIZE), None)
        return munmap(self.state, mm, vaddr, vaddr + nr_pages * PAGE_SIZE)

    def fork(self, mm: int) -> int:
        """Return the child's address space."""
        self.state.current[Current.MM] = mm
        child = fork_mm(self.state, mm)
        assert child != NIL
        for (owner, vaddr), content in list(self.held.items()):
            if owner == mm:
                self.held[child, vaddr] = content
        return child

    def exit(self, mm: int) -> int:
        """End a process; return how many pages it had."""
        self.forget(mm)
        return exit_mmap(self.state, mm)

    def forget(self, mm: int) -> None:
        """Take note that a process is gone."""
        self.held = {place: content for place, content in self.held.items() if place[0] != mm}

    def reclaim_once(self) -> None:
        """Let the kernel reclaim as for one allocation, without killing anybody."""
        direct_reclaim(self.state, 0, GFP_HIGHUSER_MOVABLE | Gfp.NORETRY)

    def swap_everything_out(self) -> None:
        """Reclaim, with time for the device, until neither a page nor a table is in memory."""
        while self.state.vm_stat[VmStat.NR_INACTIVE_ANON] + self.state.vm_stat[VmStat.NR_ACTIVE_ANON]:
            self.reclaim_once()
            self.state.current[Current.CLOCK_PS] += PS_PER_S

    # --- what there is ----------------------------------------------------------------------------------

    def pgd_entry(self, mm: int, vaddr: int) -> int:
        """Return the top table's entry for an address."""
        top = int(self.state.mm[mm].pgd_pfn)
        return int(self.state.pt_word[(top << TABLE_SHIFT) + (vaddr >> PGD_SHIFT)])

    def table_slot(self, mm: int, vaddr: int) -> int | None:
        """Return the slot that the table for an address is in, or None."""
        word = self.pgd_entry(mm, vaddr)
        return _slot(word) if word and not word & Pte.PRESENT else None

    def pte(self, mm: int, vaddr: int) -> int:
        """Return a page's entry, wherever its table is; 0 if there is no table."""
        word = self.pgd_entry(mm, vaddr)
        index = (vaddr >> PAGE_SHIFT) & (PAGES_OF_REGION - 1)
        if word == 0:
            return 0
        if word & Pte.PRESENT:
            return int(self.state.pt_word[((word >> PAGE_SHIFT) << TABLE_SHIFT) + index])
        return int(self.state.slot_word[(_slot(word) << TABLE_SHIFT) + index])

    def content(self, mm: int, vaddr: int) -> int:
        """Return what a page holds, wherever it is."""
        pte = self.pte(mm, vaddr)
        assert pte
        if pte & Pte.PRESENT:
            return int(self.state.page[(pte >> PAGE_SHIFT) & PFN_MASK].content)
        slot = self.state.swap_slot[_slot(pte)]
        return int(self.state.page[slot.cached_pfn].content if slot.cached_pfn else slot.content)

    def check(self) -> None:
        """Check what every page holds, and the invariants."""
        invariants.check(self.state)
        for (mm, vaddr), content in self.held.items():
            assert self.content(mm, vaddr) == content

    def event(self, which: VmEvent) -> int:
        """Return an event counter."""
        return int(self.state.vm_event[which])

    def nr_out(self) -> int:
        """Return how many tables have gone out so far."""
        return int(self.state.hw_event[HwEvent.TABLE_SWAPOUT])

    def nr_in(self) -> int:
        """Return how many tables have come back so far."""
        return int(self.state.hw_event[HwEvent.TABLE_SWAPIN])

    def nr_free(self) -> int:
        """Return the free frames, per-CPU lists included."""
        return int(self.state.zone["nr_free"].sum() + self.state.pcp["count"].sum())

    def nr_slots(self) -> int:
        """Return how many swap slots are in use."""
        return int(self.state.swap_area[0].nr_used)


def _slot(word: int) -> int:
    return ~(word >> SWAP_OFFSET_SHIFT) & SWAP_OFFSET_MASK
