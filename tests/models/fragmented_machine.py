"""A machine whose free memory lies in pieces, and what every page of its processes must hold."""

import random
from collections.abc import Iterable

from node import invariants
from node.counters import Knob, VmEvent
from node.joints import drain_all_pages
from node.phys.buddy import NR_ORDERS
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages
from node.phys.zone import ZoneId
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import Gfp
from tests.node.vm_machine import VmMachine

NR_PAGES_OF_PROCESS = 4096
NR_FRAMES = 3600  # free to begin with
HUGE_ORDER = 9


class FragmentedMachine(VmMachine):
    """Processes that hold pages all over memory, and in ``held`` what each reads, by (mm, page)."""

    def __init__(self, cpus: int = 1, swap_bytes: int = 0, *, is_guest: bool = False) -> None:
        super().__init__(cpus=cpus, swap_bytes=swap_bytes, is_guest=is_guest)
        # Nobody runs kswapd here, which would take a boost of the watermarks back.
        self.state.knob[Knob.WATERMARK_BOOST_FACTOR] = 0
        # Large blocks for the kernel, so that little is left for tests to fill.
        for order in range(HUGE_ORDER, -1, -1):
            while self.take_block(order, int(Gfp.DMA)) != NIL:
                pass
        while self.nr_free() > NR_FRAMES + (1 << HUGE_ORDER):
            assert self.take_block(HUGE_ORDER, 0) != NIL
        self.base: dict[int, int] = {}
        self.held: dict[tuple[int, int], int] = {}
        self.serial = 0

    def process(self) -> int:
        """Start a process with room for many pages; return its address space."""
        mm = self.spawn()
        self.base[mm] = self.map(mm, NR_PAGES_OF_PROCESS)
        return mm

    def vaddr(self, mm: int, page: int) -> int:
        """Return where a page of a process is."""
        return self.base[mm] + (page << PAGE_SHIFT)

    def store(self, mm: int, page: int) -> int:
        """Write what no other page holds; return the frame."""
        pfn = self.write(mm, self.vaddr(mm, page), 1)
        assert pfn != NIL
        self.serial += 1
        self.state.page[pfn].content = self.serial
        self.held[mm, page] = self.serial
        return pfn

    def drop(self, mm: int, pages: Iterable[int]) -> None:
        """Unmap pages one by one."""
        for page in pages:
            self.unmap(mm, self.vaddr(mm, page), 1)
            self.held.pop((mm, page), None)

    def fill(self, mm: int, leave_free: int = 0) -> int:
        """Write page after page until no more than ``leave_free`` frames are free; return how many pages."""
        page = 0
        while self.nr_left() > leave_free and page < NR_PAGES_OF_PROCESS:
            self.store(mm, page)
            page += 1
        return page

    def nr_left(self) -> int:
        """Return the free frames of the zone that pages come from."""
        return int(self.state.zone[ZoneId.DMA32].nr_free + self.state.pcp[ZoneId.DMA32].count)

    def child(self, mm: int) -> int:
        """Fork; return the child's address space."""
        child = self.fork(mm)
        self.base[child] = self.base[mm]
        self.held |= {(child, page): content for (owner, page), content in self.held.items() if owner == mm}
        return child

    def keep_every(self, mm: int, step: int, nr_pages: int) -> None:
        """Unmap all but every ``step``-th of the first pages of a process."""
        self.drop(mm, (page for page in range(nr_pages) if page % step))
        drain_all_pages(self.state)

    def take_unmovable(self, nr_frames: int) -> list[int]:
        """Allocate single frames for the kernel; return those that there were."""
        frames = []
        for _ in range(nr_frames):
            pfn = alloc_pages(self.state, 0, 0)
            if pfn == NIL:
                break
            self.state.page[pfn].page_flags |= PageFlag.KERNEL
            frames.append(pfn)
        return frames

    def take_block(self, order: int, gfp: int) -> int:
        """Allocate a block as one of the kernel's; return its first frame, or NIL."""
        pfn = alloc_pages(self.state, order, gfp)
        if pfn != NIL:
            self.state.page[pfn].page_flags |= PageFlag.KERNEL | (PageFlag.COMPOUND if order else 0)
        return pfn

    def scatter(self, seed: int, nr_pages: int) -> int:
        """Fill memory with a process's pages in random order of release, a third of them kept; return its mm."""
        mm = self.process()
        chance = random.Random(seed)  # noqa: S311
        pages = list(range(nr_pages))
        for page in pages:
            self.store(mm, page)
        chance.shuffle(pages)
        self.drop(mm, pages[nr_pages // 3 :])
        drain_all_pages(self.state)
        return mm

    def event(self, which: VmEvent) -> int:
        """Return an event counter."""
        return int(self.state.vm_event[which])

    def free_blocks(self) -> list[int]:
        """Return the free blocks of each order, of all zones."""
        area = self.state.free_area["nr_free"].reshape(-1, NR_ORDERS)
        return [int(count) for count in area.sum(axis=0)]

    def largest_block(self) -> int:
        """Return the order of the largest free block."""
        return max(order for order, count in enumerate(self.free_blocks()) if count)

    def frames(self) -> set[int]:
        """Return the frames that processes hold."""
        return {self.frame(mm, self.vaddr(mm, page)) for mm, page in self.held}

    def check(self) -> None:
        """Check that invariants hold, and that every process reads what it wrote."""
        invariants.check(self.state)
        for (mm, page), content in self.held.items():
            vaddr = self.vaddr(mm, page)
            pfn = self.frame(mm, vaddr)
            if pfn == NIL:
                pfn = self.read(mm, vaddr)
            assert self.state.page[pfn].content == content

    def read_all(self) -> None:
        """Let every process read its pages through the TLB, and see its content."""
        for (mm, page), content in self.held.items():
            pfn = self.read(mm, self.vaddr(mm, page))
            assert self.state.page[pfn].content == content


WITHOUT_COMPACTION = int(Gfp.HIGHMEM | Gfp.MOVABLE)  # may neither wait nor wake anybody
