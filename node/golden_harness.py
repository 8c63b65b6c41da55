"""What the harness that recorded the kernel goldens itself costs, in one place.

The recordings were made by a driver inside the machine: a controller with locked memory, and one process for
each ``spawn``. Their pages and faults are in the counters. These are the recorded figures (the same in all
public cases); nothing else in the simulator knows of them.

    controller           1264 anonymous pages before the first command, 16 page tables of the two lowest levels
    spawn                276 minor faults, 101 anonymous pages, 5 page tables
    fork                 1 fault in the parent and 20 in the child; 8 pages copied between them, one of which the
                         child reuses behind the parent's copy; 2 frames for pipes
    trivial program      39 faults, 45 frames, which are free again when it has ended
    parent's next turn   3 faults more: pages whose copy the child took, written again
    files                712 pages of the initramfs, which nothing reclaims, and 12 of shared memory; of them the
                         controller maps 616 and 12, a process 200 and 1, one that was forked 162 and 12
    locks                199 of the controller's image's pages are locked, and all of its own but one
    lists                one page of a process is on the active list
    counters             of resident pages (node/vm/rss.py): up to date when a process begins its first command,
                         so that its 66th fault, and each 66th from there, brings them up to date again

All of these can be read off the recordings' counters: nr_file_pages, nr_shmem, nr_mapped, nr_mlock, nr_unevictable,
nr_active_anon, RssAnon, RssFile and RssShmem.
What was free before the first command is each recording's own.

A spawned process is laid out as a static program without address randomisation is: files, data and heap from 0x400000
on, a stack of which 96 KiB (24 pages) are in use, and below mmap_base the 6 pages of vvar and vdso and a page of shared
memory. Forking it off and executing it takes and gives back some 3,000 frames. What the recorded kernel takes for its
own objects is in node/golden_kernel.py.
"""

from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from node.counters import Knob, Request, VmEvent
from node.golden_kernel import KernelFrames, slab_growth
from node.golden_layout import GoldenLayout, RecordedStart, recorded_start
from node.golden_memory import (
    ZoneFigures,
    activate_page,
    make_files,
    map_pages,
    pte_alloc_at,
    recorded_zones,
    use_pages,
    use_the_rest,
)
from node.phys.zone import ZoneId
from node.reclaim.oom import OOM_SCORE_ADJ_MIN
from node.touch import become, touch_anew
from node.vm.mlock import mlock
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
STACK_PAGES: Final = (
    33  # VmStk of a process that has just begun: setup_arg_pages leaves 128 KiB below its arguments
)
PROGRAM_EVENTS: Final = (VmEvent.PGFAULT, VmEvent.PGREUSE, VmEvent.PGALLOC_DMA32, VmEvent.PGFREE)
READ_WRITE: Final = VmFlag.READ | VmFlag.WRITE


@dataclass(frozen=True, slots=True)
class HarnessFigures:
    """What a recording's driver costs: by default, that of the public cases; else what the recording says."""

    controller_anon_pages: int = 1264
    controller_lone_pages: int = 11
    spawn_anon_pages: int = 101
    spawn_lone_pages: int = 2
    spawn_stack_pages: int = 24  # 0: the process has no stack, and its pages are packed as the controller's
    spawn_top_pages: int = (
        7  # below mmap_base: vvar's 4 and vdso's 2 (arch/x86/entry/vdso), and those it shares
    )
    spawn_freed: int = 3044
    spawn_allocated: int = 3158
    spawn_faults: int = 276
    fork_parent_copies: int = 1
    fork_child_faults: int = 20
    fork_child_copies: int = 7
    fork_kernel_pages: int = 4  # of its stack
    fork_pipe_pages: int = 2
    fork_child_reuses: int = 1  # of the pages that the parent copied: the child writes to its own behind it
    parent_reuses: int = 3
    program_faults: int = 39  # of vfork_exec, all of them; it forks, and the parent writes its stack again
    program_parent_faults: int = 2  # of them, the parent's
    program_reuses: int = 2
    program_allocated: int = 45
    program_freed: int = 45
    parent_early_reuses: int = 0  # of these, how many come before whatever is next
    image_pages: int = 712
    shared_pages: int = 12
    controller_image_pages: int = 616
    controller_shared_pages: int = 12
    spawn_image_pages: int = 200
    spawn_shared_pages: int = 1
    fork_image_pages: int = 162
    fork_shared_pages: int = 12
    locked_image_pages: int = 199
    active_pages: int = 1


FILE_FIGURES: Final = tuple(
    each.name
    for each in fields(HarnessFigures)
    if each.name.endswith(
        (
            *("image_pages", "shared_pages", "active_pages", "stack_pages", "pipe_pages"),
            *("freed", "allocated", "program_faults", "program_parent_faults"),
        )
    )
)


def harness_figures(golden: dict[str, Any]) -> HarnessFigures:
    """Return a recording's own figures, or the public cases'. Raises ValueError for any that is no count."""
    given = golden.get("harness")
    if given is None:
        return HarnessFigures(parent_early_reuses=_early_reuses(golden))
    known = {each.name for each in fields(HarnessFigures)}
    if not isinstance(given, dict) or any(
        name not in known or type(value) is not int or value < 0 for name, value in given.items()
    ):
        raise ValueError(f"harness: {given!r} is not an object of counts, of {' '.join(sorted(known))}")
    # A recording that says nothing of its driver's files has none that matter.
    return HarnessFigures(**(dict.fromkeys(FILE_FIGURES, 0) | given))


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


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording says of its machine before and beside its commands.

    With ``start``, free memory is laid out as it was there; with ``zones``, there is as much of it in each zone.
    """

    start: RecordedStart | None = None
    figures: HarnessFigures = HarnessFigures()
    zones: dict[ZoneId, ZoneFigures] = field(default_factory=dict)
    slab_growth: dict[str, int] = field(default_factory=dict)  # frames, by snapshot


def recorded_in(golden: dict[str, Any]) -> Recorded:
    """Return what a recording says. Raises ValueError for harness figures that are no counts, KeyError for lack."""
    return Recorded(
        recorded_start(golden), harness_figures(golden), recorded_zones(golden), slab_growth(golden)
    )


class GoldenHarness:
    """The driver's own processes and pages on a machine that replays a recording."""

    def __init__(self, state: "State", given: Recorded) -> None:
        self.state = state
        self.files = DATA_DISK
        self.figures = given.figures
        start, zones = given.start, given.zones
        if start is not None:
            # Where in its free memory the shared pages lay, and the kernel's frames, a recording does not say.
            self.figures = replace(
                self.figures,
                shared_pages=0,
                controller_shared_pages=0,
                spawn_shared_pages=0,
                fork_shared_pages=0,
                fork_kernel_pages=0,
                fork_pipe_pages=0,
                spawn_stack_pages=0,
            )
        self._pages: dict[int, int] = {}  # address of the driver's pages in each process
        self._reuses_due: set[int] = set()
        self._before_program = [0] * len(PROGRAM_EVENTS)
        figures = self.figures
        growth = given.slab_growth if start is None else {}
        self._kernel = KernelFrames(state, growth, figures.fork_kernel_pages, figures.fork_pipe_pages)
        nr_movable = figures.controller_anon_pages + figures.shared_pages
        layout = None if start is None else GoldenLayout(state, start, nr_movable, figures.image_pages)
        self.controller = self._process(figures.controller_anon_pages, figures.controller_lone_pages)
        state.mm[self.controller].oom_score_adj = OOM_SCORE_ADJ_MIN  # it is never chosen in the recordings
        self._driver_files = make_files(state, figures.image_pages, figures.shared_pages)
        self._use_files(self.controller, figures.controller_image_pages, figures.controller_shared_pages)
        self._lock_controller()
        if layout is not None:
            layout.close()
        elif zones:
            use_the_rest(state, zones)

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
        return mm_index

    def _write(self, mm_index: int, first: int, nr_pages: int) -> None:
        become(self.state, mm_index)
        touch_anew(self.state, mm_index, self._pages[mm_index] + first * PAGE_SIZE, nr_pages)

    def _use_files(self, mm_index: int, nr_image: int, nr_shared: int) -> None:
        """Let a process map and use pages of the files, behind lone pages of its own: that needs no more tables."""
        shared = IMAGE_START + PAGE_SIZE
        self._use(mm_index, shared, nr_shared, (self._driver_files.shared, 0))
        start = shared + self.figures.shared_pages * PAGE_SIZE
        done = 0
        while done < nr_image:
            here = min(nr_image - done, (-start % HUGE_PAGE_SIZE) // PAGE_SIZE)
            self._use(mm_index, start, here, (self._driver_files.image, done))
            done += here
            start += (here + 1) * PAGE_SIZE  # behind the next lone page

    def _lock_controller(self) -> None:
        """Lock the controller's memory: all of its own pages but one, and some of the image's."""
        figures = self.figures
        if not figures.locked_image_pages:
            return
        start = self._pages[self.controller]
        nr_lone = figures.controller_lone_pages
        self._lock(start, figures.controller_anon_pages - nr_lone)
        for lone in range(1, nr_lone):
            self._lock(IMAGE_START + lone * HUGE_PAGE_SIZE, 1)
        self._lock(IMAGE_START + (1 + figures.shared_pages) * PAGE_SIZE, figures.locked_image_pages)

    def _lock(self, start: int, nr_pages: int) -> None:
        mlock(self.state, self.controller, start, start + nr_pages * PAGE_SIZE)

    def _use(self, mm_index: int, start: int, nr_pages: int, place: tuple[int, int]) -> None:
        if nr_pages:
            map_pages(self.state, mm_index, start, nr_pages, place)
            use_pages(self.state, mm_index, start, nr_pages)

    def _set_counters(self, mm_index: int, nr_late: int, nr_faults: int) -> None:
        """Say how far behind a process's counters of resident pages are."""
        mm = self.state.mm[mm_index]
        mm.late_rss = nr_late
        mm.rss_events = nr_faults

    def _count_faults(self, mm_index: int, nr_faults: int) -> None:
        """Count faults on the driver's own files, which are not modelled."""
        self.state.mm[mm_index].minflt += nr_faults
        self.state.vm_event[VmEvent.PGFAULT] += nr_faults

    def spawn(self) -> int:
        """Return the address space of a new process, or NIL."""
        figures = self.figures
        self._kernel.spawned()
        before = [int(self.state.vm_event[event]) for event in (VmEvent.PGALLOC_DMA32, VmEvent.PGFREE)]
        if figures.spawn_stack_pages:
            mm_index = self._program()
        else:
            mm_index = self._process(figures.spawn_anon_pages, figures.spawn_lone_pages)
        if mm_index == NIL:
            return NIL
        self._count_faults(mm_index, figures.spawn_faults - figures.spawn_anon_pages)
        self._use_files(mm_index, figures.spawn_image_pages, figures.spawn_shared_pages)
        self._set_counters(mm_index, 0, 0)
        if figures.spawn_allocated:
            events = self.state.vm_event
            events[VmEvent.PGALLOC_DMA32] += (
                before[0] + figures.spawn_allocated - events[VmEvent.PGALLOC_DMA32]
            )
            events[VmEvent.PGFREE] += before[1] + figures.spawn_freed - events[VmEvent.PGFREE]
        for page in range(figures.active_pages):
            activate_page(self.state, mm_index, self._pages[mm_index] + page * PAGE_SIZE)
        return mm_index

    def _program(self) -> int:
        """Return a process laid out as a static program: data, stack, and what lies below mmap_base."""
        figures = self.figures
        mm_index = new_mm(self.state)
        if mm_index == NIL:
            return NIL
        become(self.state, mm_index)
        nr_data = figures.spawn_anon_pages - figures.spawn_stack_pages
        data = IMAGE_START + (1 + figures.shared_pages + figures.spawn_image_pages) * PAGE_SIZE
        self._map(mm_index, data, nr_data, READ_WRITE)
        touch_anew(self.state, mm_index, data, nr_data)
        mm = self.state.mm[mm_index]
        mm.brk_start = mm.brk = data + nr_data * PAGE_SIZE
        stack_top = int(self.state.knob[Knob.TASK_SIZE])
        stack_start = stack_top - STACK_PAGES * PAGE_SIZE
        self._map(mm_index, stack_start, STACK_PAGES, READ_WRITE | VmFlag.GROWSDOWN)
        self._pages[mm_index] = stack_top - figures.spawn_stack_pages * PAGE_SIZE
        self._write(mm_index, 0, figures.spawn_stack_pages)
        self._map(mm_index, 0, figures.spawn_top_pages, VmFlag.READ | VmFlag.EXEC)
        self._use_top(mm_index)
        return mm_index

    def _use_top(self, mm_index: int) -> None:
        """Let a process use the page that it shares with the controller: that takes a page table."""
        pte_alloc_at(self.state, mm_index, int(self.state.mm[mm_index].mmap_top) - PAGE_SIZE)

    def _map(self, mm_index: int, start: int, nr_pages: int, vm_flags: int) -> None:
        """Map pages at ``start``, or, if that is 0, below the last mapping."""
        request = self.state.request
        request[Request.A0] = start
        request[Request.A1] = nr_pages * PAGE_SIZE
        request[Request.A2] = vm_flags
        request[Request.A3] = MapFlag.FIXED if start else 0
        request[Request.A4] = 0
        request[Request.A5] = 0
        request[Request.A6] = PAGE_SIZE
        do_mmap(self.state, mm_index)

    def forked(self, parent: int, child: int) -> None:
        """Let parent and child do what they do right after a fork."""
        figures = self.figures
        self._kernel.forked(child)
        self._pages[child] = self._pages[parent]
        if figures.spawn_stack_pages:
            self._use_top(child)
        self._write(parent, 0, figures.fork_parent_copies)
        self._write(child, 0, figures.fork_child_reuses)
        self._write(child, figures.fork_parent_copies, figures.fork_child_copies)
        written = figures.fork_child_reuses + figures.fork_child_copies
        self._count_faults(child, figures.fork_child_faults - written)
        self._use_files(child, figures.fork_image_pages, figures.fork_shared_pages)
        # Few faults have brought them.
        self._set_counters(
            child, figures.fork_image_pages + figures.fork_shared_pages, figures.fork_child_faults
        )
        self._write(parent, figures.fork_parent_copies, figures.parent_early_reuses)
        self._reuses_due.add(parent)

    def exited(self, mm_index: int) -> None:
        """Note that a process has ended."""
        self._kernel.exited(mm_index)

    def before_snapshot(self, name: str) -> None:
        """Let the kernel have by now what it had in the recording."""
        self._kernel.before_snapshot(name)

    def before_program(self) -> None:
        """Note what has been counted before a trivial program is started."""
        self._before_program = [int(self.state.vm_event[event]) for event in PROGRAM_EVENTS]

    def after_program(self, mm_index: int) -> None:
        """Count what the recorded program, and the process that started it, did more than the model's."""
        figures = self.figures
        self.state.mm[mm_index].minflt += figures.program_parent_faults
        if not figures.program_faults:
            return
        wanted = (
            *(figures.program_faults, figures.program_reuses),
            *(figures.program_allocated, figures.program_freed),
        )
        for event, before, more in zip(PROGRAM_EVENTS, self._before_program, wanted, strict=True):
            self.state.vm_event[event] = before + more

    def before_command(self, mm_index: int) -> None:
        """Let a process do what it does before its next command."""
        if mm_index in self._reuses_due:
            self._reuses_due.remove(mm_index)
            early = self.figures.parent_early_reuses
            first = self.figures.fork_parent_copies + early
            self._write(mm_index, first, self.figures.parent_reuses - early)
