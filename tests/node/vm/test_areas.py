"""Areas after any sequence of mmap, munmap, brk, mprotect, advice and writes, against a sorted list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.counters import Knob, Request
from node.errno import Errno
from node.invariants import check
from node.pagecache.inode import new_file
from node.vm.madvise import Advice, madvise
from node.vm.mm_init import BRK_START
from node.vm.mmap import MapFlag, brk, do_mmap, munmap
from node.vm.vma import VmaSearch, VmFlag, find_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from tests.models.areas import Area, Areas
from tests.node.vm_machine import READ_WRITE, VmMachine

pytestmark = pytest.mark.three_ways

WINDOW = 40  # pages below the top, in which most happens
FILE_PAGES = 64
KINDS = ("anonymous", "anonymous", "read-only", "file", "shared file", "shared", "stack")
ADVICE = {
    Advice.NORMAL: lambda flags: flags & ~(VmFlag.RAND_READ | VmFlag.SEQ_READ),
    Advice.RANDOM: lambda flags: flags & ~VmFlag.SEQ_READ | VmFlag.RAND_READ,
    Advice.SEQUENTIAL: lambda flags: flags & ~VmFlag.RAND_READ | VmFlag.SEQ_READ,
    Advice.HUGEPAGE: lambda flags: flags & ~VmFlag.NOHUGEPAGE | VmFlag.HUGEPAGE,
    Advice.NOHUGEPAGE: lambda flags: flags & ~VmFlag.HUGEPAGE | VmFlag.NOHUGEPAGE,
    Advice.MERGEABLE: lambda flags: flags if flags & VmFlag.SHARED else flags | VmFlag.MERGEABLE,
    Advice.UNMERGEABLE: lambda flags: flags & ~VmFlag.MERGEABLE,
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["map", "map", "map at", "map over", "unmap", "advise", "advise", "write", "brk"]),
        st.integers(0, WINDOW - 1),
        st.integers(1, 8),
        st.integers(0, 20),
    ),
    max_size=30,
)


class Pair:
    """A process and its model, taken through the same steps."""

    def __init__(self) -> None:
        self.machine = VmMachine()
        self.state = self.machine.state
        self.mm = self.machine.spawn()
        self.top = int(self.state.mm[self.mm].mmap_top) >> PAGE_SHIFT
        self.model = Areas(self.top)
        self.file = new_file(self.state, FILE_PAGES, 5)
        self.nr_shared = 0

    def mmap(self, first: int, nr_pages: int, kind: str, map_flags: int) -> int:
        """Map pages of a kind, a file's from the page that lies as far from the top; return the address or Errno."""
        pgoff = (first - self.top) % 16 if "file" in kind else 0
        vm_flags = VmFlag.READ if kind == "read-only" else READ_WRITE
        for name, flag in (("shared", MapFlag.SHARED), ("stack", MapFlag.GROWSDOWN)):
            map_flags |= flag if name in kind else 0
        arguments = (first << PAGE_SHIFT, nr_pages << PAGE_SHIFT, vm_flags, map_flags)
        file = self.file if "file" in kind else 0
        for place, value in enumerate((*arguments, file, pgoff, 0)):
            self.state.request[Request.A0 + place] = value
        start = do_mmap(self.state, self.mm)
        if start >= 0:
            self.add(start >> PAGE_SHIFT, nr_pages, kind, pgoff)
        return start

    def add(self, first: int, nr_pages: int, kind: str, pgoff: int) -> None:
        """Put into the model what has been mapped."""
        vm_flags = VmFlag.READ if kind == "read-only" else READ_WRITE
        vm_flags |= VmFlag.SHARED if "shared" in kind else 0
        vm_flags |= VmFlag.GROWSDOWN if kind == "stack" else 0
        if vm_flags & (VmFlag.WRITE | VmFlag.SHARED) == VmFlag.WRITE:
            vm_flags |= VmFlag.ACCOUNT
        name = "file" if "file" in kind else ""
        if kind == "shared":
            self.nr_shared += 1
            name = f"shared {self.nr_shared}"
        place = pgoff if name else first
        self.model.map(Area(first, first + nr_pages, int(vm_flags), name, place))

    def step(self, what: str, place: int, nr_pages: int, choice: int) -> None:
        """Take one step in both, and compare what it returns."""
        first = self.top - WINDOW + place
        kind = KINDS[choice % len(KINDS)]
        behind = first + nr_pages
        if what == "map":
            gap = self.model.gap(nr_pages)
            assert self.mmap(0, nr_pages, kind, 0) == gap << PAGE_SHIFT
        elif what == "map at":
            expected = first if self.model.free(first, behind) else self.model.gap(nr_pages)
            assert self.mmap(first, nr_pages, kind, 0) == expected << PAGE_SHIFT
        elif what == "map over":
            assert self.mmap(first, nr_pages, kind, MapFlag.FIXED) == first << PAGE_SHIFT
        elif what == "unmap":
            assert munmap(self.state, self.mm, first << PAGE_SHIFT, behind << PAGE_SHIFT) >= 0
            self.model.cut(first, behind)
        elif what == "advise":
            advice = tuple(ADVICE)[choice % len(ADVICE)]
            whole = self.model.change(first, behind, lambda flags: int(ADVICE[advice](flags)))
            error = madvise(self.state, self.mm, first << PAGE_SHIFT, behind << PAGE_SHIFT, advice)
            assert error == (0 if whole else Errno.ENOMEM)
        elif what == "write":
            if not any(area.vm_flags & VmFlag.GROWSDOWN for area in self.model.areas):
                vaddr = first << PAGE_SHIFT
                assert (self.machine.write(self.mm, vaddr, choice) != NIL) == self.model.write(first)
        else:
            self.brk(choice)

    def brk(self, nr_pages: int) -> None:
        """Let the heap have this many pages."""
        start = BRK_START >> PAGE_SHIFT
        before = (int(self.state.mm[self.mm].brk) - BRK_START) >> PAGE_SHIFT
        wanted = BRK_START + nr_pages * PAGE_SIZE
        assert brk(self.state, self.mm, wanted) == wanted
        self.model.cut(start + nr_pages, start + max(before, nr_pages))
        if nr_pages > before:
            self.add(start + before, nr_pages - before, "anonymous", 0)

    def compare(self) -> None:
        """Compare all areas, and what both searches find for every page around them."""
        check(self.state)
        found = []
        index = self.state.mm[self.mm].first_vma
        names: dict[int, str] = {0: "", self.file: "file"}
        for area in self.model.areas:
            vma = self.state.vma[index]
            place = int(vma.start) >> PAGE_SHIFT, int(vma.end) >> PAGE_SHIFT
            name = names.setdefault(int(vma.inode), area.file)
            found.append((*place, int(vma.vm_flags), name, int(vma.pgoff)))
            index = vma.next
        assert index == NIL
        assert found == [
            (area.first, area.behind, area.vm_flags, area.file, area.pgoff) for area in self.model.areas
        ]
        for page in range(self.top - WINDOW, self.top, 3):
            above = [area.first for area in self.model.areas if area.behind > page]
            expected = [above[0] << PAGE_SHIFT] * 2 if above else [NIL] * 2
            assert [self.find(page, search) for search in VmaSearch] == expected

    def find(self, page: int, search: VmaSearch) -> int:
        """Return the start of the area that a search finds, or NIL."""
        self.state.mm[self.mm].last_found = NIL
        self.state.knob[Knob.VMA_SEARCH] = search
        index = find_vma(self.state, self.mm, page << PAGE_SHIFT)
        return NIL if index == NIL else int(self.state.vma[index].start)


@settings(max_examples=60)
@given(STEPS)
def test_areas_are_those_of_a_sorted_list(steps: list[tuple[str, int, int, int]]) -> None:
    pair = Pair()
    for step in steps:
        pair.step(*step)
        pair.compare()
    pair.machine.exit(pair.mm)
    check(pair.state)


def test_what_is_mapped_between_two_areas_of_different_stores_goes_to_the_upper() -> None:
    pair = Pair()
    for place in (0, 4):
        assert pair.mmap(pair.top - 10 + place, 2, "anonymous", MapFlag.FIXED) > 0
        pair.step("write", WINDOW - 10 + place, 1, 0)
    pair.mmap(pair.top - 8, 2, "anonymous", MapFlag.FIXED)
    pair.compare()
    assert [(area.first - pair.top, area.behind - pair.top) for area in pair.model.areas] == [
        (-10, -8),
        (-8, -4),
    ]
