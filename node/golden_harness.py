"""What the harness that recorded the kernel goldens itself costs, in one place.

The recordings were made by a driver inside the machine: a controller with locked memory, and one process for
each ``spawn``. Their pages and faults are in the counters. These are the recorded figures (the same in all
public cases); nothing else in the simulator knows of them.

    controller           1264 anonymous pages before the first command, 16 page tables of the two lowest levels
    spawn                276 minor faults, 101 anonymous pages, 5 page tables
    fork                 1 fault in the parent and 20 in the child; 8 pages copied between them
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
"""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from node.counters import VmEvent
from node.golden_layout import GoldenLayout, RecordedStart
from node.golden_memory import ZoneFigures, activate_page, make_files, map_pages, use_pages, use_the_rest
from node.phys.zone import ZoneId
from node.reclaim.oom import OOM_SCORE_ADJ_MIN
from node.touch import become, touch_anew
from node.vm.mlock import mlock
from node.vm.mm_init import new_mm
from node.vm.mmap import mmap, mmap_fixed
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


@dataclass(frozen=True, slots=True)
class HarnessFigures:
    """What a recording's driver costs: by default, that of the public cases; else what the recording says."""

    controller_anon_pages: int = 1264
    controller_lone_pages: int = 11
    spawn_anon_pages: int = 101
    spawn_lone_pages: int = 2
    spawn_faults: int = 276
    fork_parent_copies: int = 1
    fork_child_faults: int = 20
    fork_child_copies: int = 7
    fork_child_reuses: int = 0  # of the pages that the parent copied: the child writes to its own behind it
    parent_reuses: int = 3
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
    field.name
    for field in fields(HarnessFigures)
    if field.name.endswith(("image_pages", "shared_pages", "active_pages"))
)


def harness_figures(golden: dict[str, Any]) -> HarnessFigures:
    """Return a recording's own figures, or the public cases'. Raises ValueError for any that is no count."""
    given = golden.get("harness")
    if given is None:
        return HarnessFigures()
    known = {field.name for field in fields(HarnessFigures)}
    if not isinstance(given, dict) or any(
        name not in known or type(value) is not int or value < 0 for name, value in given.items()
    ):
        raise ValueError(f"harness: {given!r} is not an object of counts, of {' '.join(sorted(known))}")
    # A recording that says nothing of its driver's files has none that matter.
    return HarnessFigures(**(dict.fromkeys(FILE_FIGURES, 0) | given))


class GoldenHarness:
    """The driver's own processes and pages on a machine that replays a recording.

    With ``start``, the machine's free memory is laid out as the recorded one's was; with ``zones``, there is as much
    of it in each zone.
    """

    def __init__(
        self,
        state: "State",
        start: RecordedStart | None = None,
        figures: HarnessFigures | None = None,
        zones: dict[ZoneId, ZoneFigures] | None = None,
    ) -> None:
        self.state = state
        self.files = DATA_DISK
        self.figures = figures or HarnessFigures()
        if start is not None:
            # Where in its free memory the shared pages lay, a recording does not say.
            self.figures = replace(
                self.figures,
                shared_pages=0,
                controller_shared_pages=0,
                spawn_shared_pages=0,
                fork_shared_pages=0,
            )
        self._pages: dict[int, int] = {}  # address of the driver's pages in each process
        self._reuses_due: set[int] = set()
        figures = self.figures
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
        mm_index = self._process(figures.spawn_anon_pages, figures.spawn_lone_pages)
        if mm_index == NIL:
            return NIL
        self._count_faults(mm_index, figures.spawn_faults - figures.spawn_anon_pages)
        self._use_files(mm_index, figures.spawn_image_pages, figures.spawn_shared_pages)
        self._set_counters(mm_index, 0, 0)
        for page in range(figures.active_pages):
            activate_page(self.state, mm_index, self._pages[mm_index] + page * PAGE_SIZE)
        return mm_index

    def forked(self, parent: int, child: int) -> None:
        """Let parent and child do what they do right after a fork."""
        figures = self.figures
        self._pages[child] = self._pages[parent]
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
        self._reuses_due.add(parent)

    def before_command(self, mm_index: int) -> None:
        """Let a process do what it does before its next command."""
        if mm_index in self._reuses_due:
            self._reuses_due.remove(mm_index)
            self._write(mm_index, self.figures.fork_parent_copies, self.figures.parent_reuses)
