"""A built machine for tests of memory management, with the steps that tests take."""

from dataclasses import replace

from node.build import build_state
from node.content import write_first_byte
from node.counters import Current, Knob, Request
from node.fault.access import touch
from node.hw.hardware import resolve_hw
from node.joints import run_in_user_mode
from node.spec import MachineSpec, SwapSpec
from node.state import State
from node.vm.fork import fork_mm
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap, munmap
from node.vm.unmap import exit_mmap
from node.vm.vma import VmFlag
from shared.constants import MIB, NIL, PAGE_SHIFT
from shared.jit import entry
from tests.models.page_tables import frame_of, leaf_entry

SMALL_BYTES = 72 * MIB  # little more than the kernel itself takes: 6,200 frames
READ_WRITE = VmFlag.READ | VmFlag.WRITE
SMALL_HW, SMALL_TLB = resolve_hw(
    {
        "tlb": {"l1_entries": 4, "l1_ways": 2, "l2_entries": 16, "l2_ways": 4},
        "walk_caches": {"pd": {"entries": 4}},
    }
)


@entry
def touch_page(state: State, mm: int, vaddr: int, write: int) -> int:
    run_in_user_mode(state, mm)
    return touch(state, mm, vaddr, write)


@entry
def write_byte(state: State, mm: int, vaddr: int, value: int) -> int:
    run_in_user_mode(state, mm)
    pfn = touch(state, mm, vaddr, 1)
    if pfn != NIL:
        write_first_byte(state, pfn, value)
    return pfn


class VmMachine:
    """A machine, and its address spaces by page number."""

    def __init__(
        self, cpus: int = 1, swap_bytes: int = 0, *, rotational: bool = False, is_guest: bool = False
    ) -> None:
        swap = SwapSpec(swap_bytes, "hdd" if rotational else "ssd") if swap_bytes else None
        spec = MachineSpec(
            SMALL_BYTES,
            cpus=cpus,
            min_free_kbytes=128,
            overcommit_memory=1,
            swap=swap,
            tlb=SMALL_TLB,
            hw=SMALL_HW,
        )
        self.state = build_state(replace(spec, is_guest=is_guest))

    def spawn(self) -> int:
        """Return a new process's address space."""
        mm = new_mm(self.state)
        assert mm != NIL
        return mm

    def spawn_written(self, nr_pages: int) -> tuple[int, int]:
        """Return a process and where it has written ``nr_pages``: page i with i + 1."""
        mm = self.spawn()
        vaddr = self.map(mm, nr_pages)
        for page in range(nr_pages):
            self.write(mm, vaddr + (page << PAGE_SHIFT), page + 1)
        return mm, vaddr

    def map(self, mm: int, nr_pages: int, vm_flags: int = READ_WRITE) -> int:
        """Map ``nr_pages`` and return the address."""
        start = mmap(self.state, mm, nr_pages << PAGE_SHIFT, vm_flags)
        assert start != NIL
        return start

    def unmap(self, mm: int, vaddr: int, nr_pages: int) -> int:
        """Unmap ``nr_pages`` from ``vaddr``; return how many were there."""
        return munmap(self.state, mm, vaddr, vaddr + (nr_pages << PAGE_SHIFT))

    def write(self, mm: int, vaddr: int, value: int) -> int:
        """Write a byte as process ``mm``; return the frame, or NIL: a signal."""
        self.state.current[Current.MM] = mm
        return write_byte(self.state, mm, vaddr, value)

    def read(self, mm: int, vaddr: int) -> int:
        """Read as process ``mm``; return the frame, or NIL: a signal."""
        self.state.current[Current.MM] = mm
        return touch_page(self.state, mm, vaddr, 0)

    def outcome(self) -> int:
        """Return the VmFault of the access that was refused last."""
        return int(self.state.request[Request.R0])

    def fork(self, mm: int) -> int:
        """Return the child's address space."""
        child = fork_mm(self.state, mm)
        assert child != NIL
        return child

    def exit(self, mm: int) -> int:
        """End the process; return how many pages it had."""
        return exit_mmap(self.state, mm)

    def pte(self, mm: int, vaddr: int) -> int:
        """Return the leaf entry for ``vaddr``, or 0 if a table is missing."""
        return leaf_entry(self.state, self.state.mm[mm].pgd_pfn, vaddr)

    def frame(self, mm: int, vaddr: int) -> int:
        """Return the frame that is mapped at ``vaddr``, or NIL."""
        return frame_of(self.pte(mm, vaddr))

    def content(self, mm: int, vaddr: int) -> int:
        """Return the content id that is mapped at ``vaddr``."""
        pfn = self.frame(mm, vaddr)
        assert pfn != NIL
        return int(self.state.page[pfn].content)

    def is_zero_page(self, mm: int, vaddr: int) -> bool:
        """Return whether the shared page of zeroes is mapped at ``vaddr``."""
        return self.frame(mm, vaddr) == self.state.knob[Knob.ZERO_PFN]

    def nr_free(self) -> int:
        """Return the free frames, per-CPU lists included."""
        return int(self.state.zone["nr_free"].sum() + self.state.pcp["count"].sum())
