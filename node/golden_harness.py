"""What the harness that recorded the kernel goldens itself costs, in one place.

The recordings were made by a driver inside the machine: a controller with locked memory, and one process for
each ``spawn``. Their pages and faults are in the counters. These are the recorded figures (the same in all
public cases); nothing else in the simulator knows of them.

    controller           1264 anonymous pages before the first command, 16 page tables of the two lowest levels
    spawn                276 minor faults, 101 anonymous pages, 5 page tables
    fork                 1 fault in the parent and 20 in the child; 8 pages copied between them
    parent's next turn   3 faults more: pages whose copy the child took, written again
"""

from typing import TYPE_CHECKING, Final

from node.counters import VmEvent
from node.golden_layout import GoldenLayout, RecordedStart
from node.touch import become, touch_anew
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap, mmap_fixed
from node.vm.vma import VmFlag
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

CONTROLLER_ANON_PAGES: Final = 1264
SPAWN_ANON_PAGES: Final = 101
# Pages that lie alone, 2 MiB apart, where a program's image and heap are: each needs a page table of its own, and
# they make the recorded number of tables.
IMAGE_START: Final = 0x400000
CONTROLLER_LONE_PAGES: Final = 11
SPAWN_LONE_PAGES: Final = 2
SPAWN_FAULTS: Final = 276
FORK_CHILD_FAULTS: Final = 20
FORK_PARENT_COPIES: Final = 1
FORK_CHILD_COPIES: Final = 7
PARENT_REUSES: Final = 3


class GoldenHarness:
    """The driver's own processes and pages on a machine that replays a recording.

    With ``start``, the machine's free memory is laid out as the recorded one's was.
    """

    def __init__(self, state: "State", start: RecordedStart | None = None) -> None:
        self.state = state
        self._pages: dict[int, int] = {}  # address of the driver's pages in each process
        self._reuses_due: set[int] = set()
        layout = None if start is None else GoldenLayout(state, start, CONTROLLER_ANON_PAGES)
        self.controller = self._process(CONTROLLER_ANON_PAGES, CONTROLLER_LONE_PAGES)
        if layout is not None:
            layout.close()

    def _process(self, nr_pages: int, nr_lone: int) -> int:
        mm_index = new_mm(self.state)
        if mm_index == NIL:
            return NIL
        self._pages[mm_index] = mmap(
            self.state, mm_index, (nr_pages - nr_lone) * PAGE_SIZE, VmFlag.READ | VmFlag.WRITE
        )
        self._write(mm_index, 0, nr_pages - nr_lone)
        for start in range(IMAGE_START, IMAGE_START + nr_lone * HUGE_PAGE_SIZE, HUGE_PAGE_SIZE):
            mmap_fixed(self.state, mm_index, start, start + PAGE_SIZE)
            touch_anew(self.state, mm_index, start, 1)
        return mm_index

    def _write(self, mm_index: int, first: int, nr_pages: int) -> None:
        become(self.state, mm_index)
        touch_anew(self.state, mm_index, self._pages[mm_index] + first * PAGE_SIZE, nr_pages)

    def _count_faults(self, mm_index: int, nr_faults: int) -> None:
        """Count faults on the driver's own files, which are not modelled."""
        self.state.mm[mm_index].minflt += nr_faults
        self.state.vm_event[VmEvent.PGFAULT] += nr_faults

    def spawn(self) -> int:
        """Return the address space of a new process, or NIL."""
        mm_index = self._process(SPAWN_ANON_PAGES, SPAWN_LONE_PAGES)
        if mm_index == NIL:
            return NIL
        self._count_faults(mm_index, SPAWN_FAULTS - SPAWN_ANON_PAGES)
        return mm_index

    def forked(self, parent: int, child: int) -> None:
        """Let parent and child do what they do right after a fork."""
        self._pages[child] = self._pages[parent]
        self._write(parent, 0, FORK_PARENT_COPIES)
        self._write(child, FORK_PARENT_COPIES, FORK_CHILD_COPIES)
        self._count_faults(child, FORK_CHILD_FAULTS - FORK_CHILD_COPIES)
        self._reuses_due.add(parent)

    def before_command(self, mm_index: int) -> None:
        """Let a process do what it does before its next command."""
        if mm_index in self._reuses_due:
            self._reuses_due.remove(mm_index)
            self._write(mm_index, FORK_PARENT_COPIES, PARENT_REUSES)
