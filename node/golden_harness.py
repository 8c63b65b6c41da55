"""What the harness that recorded the kernel goldens itself costs, in one place.

The recordings were made by a driver inside the machine: a controller with locked memory, and one process for
each ``spawn``. Their pages and faults are in the counters. These are the recorded figures (the same in all
public cases); nothing else in the simulator knows of them.

    controller           1264 anonymous pages before the first command, 16 page tables of the two lowest levels
    spawn                276 minor faults, 101 anonymous pages, 5 page tables; resident beside them are 200 pages of
                         the program's file and one of memory that all processes share
    fork                 1 fault in the parent and 20 in the child; 8 pages copied between them, one of which the
                         child reuses behind the parent's copy
    parent's next turn   3 faults more: pages whose copy the child took, written again

A spawned process is laid out as a static program without address randomisation is: text, data and heap from 0x400000
on, a stack of which 96 KiB (24 pages) are in use, and below mmap_base the 6 pages of vvar and vdso and the driver's
shared memory. Forking it off and executing it takes and gives back some 3,000 frames.

Pages that belong to the machine but to no process of the model, a kernel's and an initramfs's, are in some levels from
the start: ``with_levels_at_boot`` adds what the recording's own first snapshot has more than the model's.
"""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from node.counters import Knob, Request, VmEvent
from node.golden_layout import GoldenLayout, RecordedStart
from node.joints import populate_range
from node.pagecache.inode import new_file
from node.pagecache.shmem import new_shmem_inode
from node.touch import become, touch_anew
from node.vm.mm_init import new_mm
from node.vm.mmap import MapFlag, do_mmap, mmap, mmap_fixed
from node.vm.vma import VmFlag
from shared.constants import HUGE_PAGE_SIZE, MIB, NIL, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

DATA_DISK: Final = {
    f"/mnt/{name}": int(name[1:]) * MIB
    for name in ("f4", "f16", "f32", "f64", "f96", "f128", "g16", "g64", "s1")
}
# Pages that lie alone, 2 MiB apart, where a program's image and heap are: each needs a page table of its own, and
# they make the recorded number of tables.
IMAGE_START: Final = 0x400000
SHARED_PAGES: Final = 1  # RssShmem of a process
VDSO_PAGES: Final = 6  # vvar's 4 and vdso's 2 (arch/x86/entry/vdso)
STACK_PAGES: Final = (
    33  # VmStk of a process that has just begun: setup_arg_pages leaves 128 KiB below its arguments
)
READ_WRITE: Final = VmFlag.READ | VmFlag.WRITE


@dataclass(frozen=True, slots=True)
class HarnessFigures:
    """What a recording's driver costs: by default, that of the public cases; else what the recording says."""

    controller_anon_pages: int = 1264
    controller_lone_pages: int = 11
    spawn_anon_pages: int = 101
    spawn_lone_pages: int = 2
    spawn_stack_pages: int = 24  # 0: the process has no stack, and its pages are packed as the controller's
    spawn_file_pages: int = 200
    spawn_freed: int = 3044
    spawn_allocated: int = 3158
    spawn_faults: int = 276
    fork_parent_copies: int = 1
    fork_child_faults: int = 20
    fork_child_copies: int = 7
    fork_child_reuses: int = 1  # of the pages that the parent copied: the child writes to its own behind it
    parent_reuses: int = 3
    parent_early_reuses: int = 0  # of these, how many come before whatever is next


def harness_figures(golden: dict[str, Any]) -> HarnessFigures:
    """Return a recording's own figures, or the public cases'. Raises ValueError for any that is no count."""
    given = golden.get("harness")
    if given is None:
        return HarnessFigures(parent_early_reuses=_early_reuses(golden))
    known = {field.name for field in fields(HarnessFigures)}
    if not isinstance(given, dict) or any(
        name not in known or type(value) is not int or value < 0 for name, value in given.items()
    ):
        raise ValueError(f"harness: {given!r} is not an object of counts, of {' '.join(sorted(known))}")
    unknown = dict.fromkeys(
        ("spawn_stack_pages", "spawn_file_pages", "spawn_freed", "spawn_allocated", "fork_child_reuses"), 0
    )
    return HarnessFigures(**(unknown | given))


def _early_reuses(golden: dict[str, Any]) -> int:
    """Return how many pages the parent of a fork wrote again before the snapshot that stands right behind it.

    That is a matter of when the driver's processes were run: with one run it differs from the next, in most cases.
    ``pgreuse`` of that snapshot says it, since it has the child's one beside it and nothing else happened.
    """
    lines = golden.get("workload", ())
    deltas = {one["name"]: one.get("delta_from_previous", {}) for one in golden.get("snapshots", ())}
    for line, behind in pairwise(lines):
        if ": fork " in line and behind.startswith("snapshot "):
            reuses = deltas.get(behind.split()[1], {}).get("vmstat.pgreuse", 1)
            reuses = reuses if isinstance(reuses, int) else reuses[1]
            return min(max(reuses - HarnessFigures().fork_child_reuses, 0), 1)
    return 0


# Levels of /proc/vmstat that the kernel's own files, the initramfs and locked pages of the driver have a part in.
OUTSIDE: Final = (
    *("nr_mapped", "nr_file_pages", "nr_shmem"),
    *("nr_inactive_anon", "nr_active_anon", "nr_mlock", "nr_unevictable"),
)


def with_levels_at_boot(
    golden: dict[str, Any], snapshots: list[tuple[str, dict[str, int]]]
) -> list[tuple[str, dict[str, int]]]:
    """Return a program's snapshots with what the recorded machine had more of at boot added to each."""
    recorded = golden["snapshots"][0].get("level", {})
    for name in (f"vmstat.{level}" for level in OUTSIDE):
        at_boot = recorded.get(name, 0)  # left out where it is 0
        if name in snapshots[0][1]:
            more = (at_boot if type(at_boot) is int else at_boot[1]) - snapshots[0][1][name]
            for _, values in snapshots:
                values[name] += more
    return snapshots


class GoldenHarness:
    """The driver's own processes and pages on a machine that replays a recording.

    With ``start``, the machine's free memory is laid out as the recorded one's was.
    """

    def __init__(
        self, state: "State", start: RecordedStart | None = None, figures: HarnessFigures | None = None
    ) -> None:
        self.state = state
        self.files = DATA_DISK
        self.figures = figures or HarnessFigures()
        if start is not None:
            # The recorded start has the pages of the program's file in use already, and the shared page.
            self.figures = replace(self.figures, spawn_stack_pages=0, spawn_file_pages=0)
        self._pages: dict[int, int] = {}  # address of the driver's pages in each process
        self._reuses_due: set[int] = set()
        # The file of the driver's program, and the memory that its processes share.
        self._text = new_file(state, max(self.figures.spawn_file_pages, 1), 0)
        self._shared = new_shmem_inode(state, SHARED_PAGES, 0)
        layout = None if start is None else GoldenLayout(state, start, self.figures.controller_anon_pages)
        self.controller = self._process(
            self.figures.controller_anon_pages, self.figures.controller_lone_pages
        )
        if self.figures.spawn_stack_pages:
            self._map_text(self.controller, IMAGE_START + PAGE_SIZE)
            self._map_shared(self.controller)
        if layout is not None:
            layout.close()

    def _process(self, nr_pages: int, nr_lone: int) -> int:
        mm_index = new_mm(self.state)
        if mm_index == NIL:
            return NIL
        # The driver was there before it turned huge pages on, and its pages lie where none fit.
        huge = VmFlag.NOHUGEPAGE if self.state.knob[Knob.THP_ENABLED] else 0
        self._pages[mm_index] = mmap(
            self.state, mm_index, (nr_pages - nr_lone) * PAGE_SIZE, VmFlag.READ | VmFlag.WRITE | huge
        )
        self._write(mm_index, 0, nr_pages - nr_lone)
        for start in range(IMAGE_START, IMAGE_START + nr_lone * HUGE_PAGE_SIZE, HUGE_PAGE_SIZE):
            mmap_fixed(self.state, mm_index, start, start + PAGE_SIZE)
            touch_anew(self.state, mm_index, start, 1)
        mm = self.state.mm[mm_index]
        mm.brk_start = mm.brk = IMAGE_START + max(nr_lone - 1, 0) * HUGE_PAGE_SIZE + PAGE_SIZE
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
        figures = self.figures
        before = [int(self.state.vm_event[event]) for event in (VmEvent.PGALLOC_DMA32, VmEvent.PGFREE)]
        if figures.spawn_stack_pages:
            mm_index = self._program()
        else:
            mm_index = self._process(figures.spawn_anon_pages, figures.spawn_lone_pages)
        if mm_index == NIL:
            return NIL
        self._count_faults(mm_index, figures.spawn_faults - self.state.mm[mm_index].minflt)
        if figures.spawn_allocated:
            events = self.state.vm_event
            events[VmEvent.PGALLOC_DMA32] += figures.spawn_allocated - (
                events[VmEvent.PGALLOC_DMA32] - before[0]
            )
            events[VmEvent.PGFREE] += figures.spawn_freed - (events[VmEvent.PGFREE] - before[1])
        return mm_index

    def _program(self) -> int:
        """Return a process laid out as a static program: text, data, stack, and what lies below mmap_base."""
        figures = self.figures
        mm_index = new_mm(self.state)
        if mm_index == NIL:
            return NIL
        become(self.state, mm_index)
        data = self._map_text(mm_index, IMAGE_START)
        nr_data = figures.spawn_anon_pages - figures.spawn_stack_pages
        self._pages[mm_index] = self._map(mm_index, (data, nr_data), READ_WRITE)
        self._write(mm_index, 0, nr_data)
        mm = self.state.mm[mm_index]
        mm.brk_start = mm.brk = data + nr_data * PAGE_SIZE
        stack_top = int(self.state.knob[Knob.TASK_SIZE])
        self._map(mm_index, (stack_top - STACK_PAGES * PAGE_SIZE, STACK_PAGES), READ_WRITE | VmFlag.GROWSDOWN)
        stack = stack_top - figures.spawn_stack_pages * PAGE_SIZE
        touch_anew(self.state, mm_index, stack, figures.spawn_stack_pages)
        self._map(mm_index, (0, VDSO_PAGES), VmFlag.READ | VmFlag.EXEC)
        self._map_shared(mm_index)
        return mm_index

    def _map_text(self, mm_index: int, start: int) -> int:
        """Map the driver's program file at ``start``, resident; return the address behind it."""
        nr_pages = self.figures.spawn_file_pages
        if nr_pages == 0:
            return start
        self._map(mm_index, (start, nr_pages), VmFlag.READ | VmFlag.EXEC, self._text)
        populate_range(self.state, mm_index, start, start + nr_pages * PAGE_SIZE)
        return start + nr_pages * PAGE_SIZE

    def _map_shared(self, mm_index: int) -> None:
        """Map the memory that all processes of the driver share, and touch it."""
        shared = self._map(mm_index, (0, SHARED_PAGES), READ_WRITE | VmFlag.SHARED, self._shared)
        touch_anew(self.state, mm_index, shared, 1)

    def _map(self, mm_index: int, where: tuple[int, int], vm_flags: int, inode: int = 0) -> int:
        """Map (address or 0, pages); return the address."""
        request = self.state.request
        request[Request.A0], nr_pages = where
        request[Request.A1] = nr_pages * PAGE_SIZE
        request[Request.A2] = vm_flags
        request[Request.A3] = MapFlag.FIXED if where[0] else 0
        request[Request.A4] = inode
        request[Request.A5] = 0
        request[Request.A6] = PAGE_SIZE
        return do_mmap(self.state, mm_index)

    def forked(self, parent: int, child: int) -> None:
        """Let parent and child do what they do right after a fork."""
        figures = self.figures
        self._pages[child] = self._pages[parent]
        self._write(parent, 0, figures.fork_parent_copies)
        self._write(child, 0, figures.fork_child_reuses)
        self._write(child, figures.fork_parent_copies, figures.fork_child_copies)
        written = figures.fork_child_reuses + figures.fork_child_copies
        self._count_faults(child, figures.fork_child_faults - written)
        self._write(parent, figures.fork_parent_copies, figures.parent_early_reuses)
        self._reuses_due.add(parent)

    def before_command(self, mm_index: int) -> None:
        """Let a process do what it does before its next command."""
        if mm_index in self._reuses_due:
            self._reuses_due.remove(mm_index)
            early = self.figures.parent_early_reuses
            first = self.figures.fork_parent_copies + early
            self._write(mm_index, first, self.figures.parent_reuses - early)
