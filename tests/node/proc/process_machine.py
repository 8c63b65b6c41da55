"""A machine whose processes have areas and pages of each kind, for tests of what /proc says of them."""

from node.counters import Request
from node.hw.pte import SWAP_OFFSET_MASK, SWAP_OFFSET_SHIFT, Pte
from node.pagecache.inode import new_file
from node.phys.page import PageFlag
from node.vm.hugetlb import map_huge
from node.vm.mmap import MapFlag, brk, do_mmap, mmap_fixed
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, PAGE_SHIFT, PAGE_SIZE
from tests.models.page_tables import entries_on_the_way
from tests.node.vm_machine import READ_WRITE, VmMachine

HUGE_AT = 0x4000_0000
OF_A_HUGE_PAGE = PageFlag.HUGE | PageFlag.ANON


class ProcessMachine(VmMachine):
    """A machine, and the areas that tests of /proc want."""

    def map_shared(self, mm: int, nr_pages: int, inode: int = 0, first: int = 0) -> int:
        """Map shared memory, or a file from page ``first`` on; return the address."""
        request = self.state.request
        request[Request.A0] = 0
        request[Request.A1] = nr_pages << PAGE_SHIFT
        request[Request.A2] = READ_WRITE
        request[Request.A3] = MapFlag.SHARED
        request[Request.A4] = inode
        request[Request.A5] = first
        start = do_mmap(self.state, mm)
        assert start > 0
        return int(start)

    def file(self, nr_pages: int) -> int:
        """Return the inode of a new file."""
        return int(new_file(self.state, nr_pages, 1))

    def grow_heap(self, mm: int, nr_pages: int) -> int:
        """Add pages to the heap; return where they begin."""
        start = int(self.state.mm[mm].brk)
        assert brk(self.state, mm, start + nr_pages * PAGE_SIZE) > start
        return start

    def swap_out(self, mm: int, vaddr: int, slot: int, nr_users: int) -> None:
        """Let the entry say that its page is in a slot which ``nr_users`` entries refer to."""
        position = entries_on_the_way(self.state, self.state.mm[mm].pgd_pfn, vaddr)[-1][0]
        self.state.pt_word[position] = (~slot & SWAP_OFFSET_MASK) << SWAP_OFFSET_SHIFT
        self.state.swap_slot[slot].nr_users = nr_users

    def map_huge_page(self, mm: int) -> int:
        """Map an anonymous huge page at HUGE_AT by one entry, as a fault would; return its first frame."""
        mmap_fixed(self.state, mm, HUGE_AT, HUGE_AT + HUGE_PAGE_SIZE)
        first = int(map_huge(self.state, mm, HUGE_AT))
        for pfn in range(first, first + ENTRIES_PER_TABLE):
            page = self.state.page[pfn]
            page.page_flags = OF_A_HUGE_PAGE
            page.head = 0 if pfn == first else first
        head = self.state.page[first]
        head.page_flags |= PageFlag.LRU | PageFlag.SWAPBACKED
        head.mapcount = 0
        head.huge_mapcount = 1
        return first

    def map_by_small_entries(self, mm: int, first: int) -> None:
        """Let a process map the huge page of frame ``first`` by 512 entries beside the other's one."""
        vaddr = self.map(mm, ENTRIES_PER_TABLE)
        for number in range(ENTRIES_PER_TABLE):
            self.read(mm, vaddr + number * PAGE_SIZE)
            position = entries_on_the_way(self.state, self.state.mm[mm].pgd_pfn, vaddr + number * PAGE_SIZE)[
                -1
            ][0]
            self.state.pt_word[position] = (first + number) << PAGE_SHIFT | Pte.PRESENT | Pte.USER
            self.state.page[first + number].mapcount += 2  # its own, and one for the entry of the PMD
        self.state.page[first].page_flags |= PageFlag.DOUBLE_MAP
