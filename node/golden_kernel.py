"""Frames of a recorded machine's kernel that come and go with its processes, and that the model has no use for.

    stack     4 frames (THREAD_SIZE, 16 KiB) for each fork; of processes that end, two a CPU are kept for the next
              (kernel/fork.c, NR_CACHED_STACKS)
    pipes     the driver's fork opens two, and each takes a frame with its first message (fs/pipe.c, pipe_write)
    slabs     tasks, signals, areas, rmap_items ... are objects; how full their slabs were before the first command
              is not recorded, but what the slabs grew by is (nr_slab_unreclaimable, nr_slab_reclaimable)

Up to a snapshot before which a process was spawned, what slabs grew by is among the frames of that (HarnessFigures).
With them, ``pgalloc_*`` counts what the recorded kernel counted. They are real frames of the simulated machine.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from node.joints import alloc_frames, free_frames
from node.phys.page import PageFlag
from shared.constants import NIL
from shared.gfp_flags import GFP_KERNEL

if TYPE_CHECKING:
    from node.state import State

MOST_CACHED_STACKS: Final = 2
SLAB_GROWTH: Final = "slab_growth"  # in a recording's ``machine``
SLABS: Final = ("vmstat.nr_slab_unreclaimable", "vmstat.nr_slab_reclaimable")


def slab_growth(golden: dict[str, Any]) -> dict[str, int]:
    """Return by how many frames a recording's slabs grew up to each snapshot, by its name: medians, if that varied.

    One that we wrote says what was given to us: our own slabs are none of the recorded kernel's.
    """
    if SLAB_GROWTH in golden.get("machine", {}):
        return dict(golden["machine"][SLAB_GROWTH])
    grown: defaultdict[str, int] = defaultdict(int)
    for snapshot in golden.get("snapshots", ()):
        deltas = snapshot.get("delta_from_previous", {})
        for name in SLABS:
            value = deltas.get(name, 0)
            grown[snapshot["name"]] += value if isinstance(value, int) else value[1]
    return dict(grown)


class KernelFrames:
    """The frames of stacks, pipes and slabs, as far as a recording's processes made them."""

    def __init__(self, state: "State", growth: dict[str, int], nr_stack: int, nr_pipe: int) -> None:
        self._state = state
        self._growth = growth
        self._nr_stack = nr_stack
        self._nr_pipe = nr_pipe
        self._has_spawned = False
        self._slabs: list[int] = []
        self._stacks: dict[int, list[int]] = {}  # of forked processes, by address space
        self._cached: list[list[int]] = []  # of a process that was there from the start: none of ours

    def spawned(self) -> None:
        """Note that a process was spawned."""
        self._has_spawned = True

    def forked(self, child: int) -> None:
        """Give a process its stack, and the driver the pipes to it."""
        self._stacks[child] = self._cached.pop() if self._cached else self._take(self._nr_stack)
        self._take(self._nr_pipe)

    def exited(self, mm_index: int) -> None:
        """Take back a process's stack."""
        stack = self._stacks.pop(mm_index, [])
        if len(self._cached) < MOST_CACHED_STACKS:
            self._cached.append(stack)
        else:
            self._give_back(stack)

    def before_snapshot(self, name: str) -> None:
        """Let the slabs have grown, or shrunk, as they had in the recording."""
        growth = 0 if self._has_spawned else self._growth.get(name, 0)
        self._has_spawned = False
        if growth >= 0:
            self._slabs += self._take(growth)
        else:
            kept = max(len(self._slabs) + growth, 0)
            self._give_back(self._slabs[kept:])
            del self._slabs[kept:]

    def _take(self, nr_frames: int) -> list[int]:
        taken = []
        for _ in range(nr_frames):
            pfn = alloc_frames(self._state, 0, GFP_KERNEL)
            if pfn == NIL:
                break
            self._state.page[pfn].page_flags |= PageFlag.KERNEL
            taken.append(pfn)
        return taken

    def _give_back(self, frames: list[int]) -> None:
        for pfn in frames:
            self._state.page[pfn].page_flags &= ~PageFlag.KERNEL
            free_frames(self._state, pfn, 0)
