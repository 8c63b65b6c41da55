"""The check of SLUB's tables finds what is broken in them, and says where."""

from collections.abc import Callable

import pytest

from node.counters import VmStat
from node.kalloc.slub_check import check_slub
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT
from tests.node.kalloc.slub_machine import SlubMachine

SIZE = 512
PER_SLAB = 16


class Broken:
    """A machine with a slab of CPU 0, one on its partial list, one on the node's, and a full one."""

    def __init__(self) -> None:
        self.machine = SlubMachine()
        self.state = self.machine.state
        self.cache = self.machine.create(SIZE)
        objects = self.machine.take(self.cache, 3 * PER_SLAB)
        self.machine.on(1)
        theirs = self.machine.take(self.cache, 2)
        self.machine.on(0)
        self.machine.alloc(self.cache)
        self.machine.free(self.cache, *objects[:3])
        self.slab_of_cpu_1 = theirs[0] >> PAGE_SHIFT
        self.partial = objects[0] >> PAGE_SHIFT
        self.full = objects[PER_SLAB] >> PAGE_SHIFT
        self.freed = objects[:3]
        self.machine.check()

    def link(self, paddr: int, following: int) -> None:
        self.state.slab_word[(paddr + SIZE // 2) >> 3] = following


def _break_count(broken: Broken) -> None:
    broken.state.kmem_cache[broken.cache].nr_objects += 1


def _break_inuse(broken: Broken) -> None:
    broken.state.page[broken.partial].private += 1


def _break_link(broken: Broken) -> None:
    broken.link(broken.freed[2], 0x1238)


def _break_circle(broken: Broken) -> None:
    broken.link(broken.freed[0], broken.freed[2])


def _break_freelist_of_cpu(broken: Broken) -> None:
    nr_cpus = 2
    broken.state.kmem_cache_cpu[broken.cache * nr_cpus + 1].freelist += 8


def _lose_partial_list(broken: Broken) -> None:
    broken.state.kmem_cache_cpu[broken.cache * 2].partial = NIL


def _list_full_slab(broken: Broken) -> None:
    node = broken.state.kmem_cache_node[broken.cache]
    node.first = node.last = broken.full
    node.nr_partial = 1
    broken.state.page[broken.full].next = NIL
    broken.state.page[broken.full].prev = NIL


def _break_node_count(broken: Broken) -> None:
    broken.state.kmem_cache_node[broken.cache].total_objects -= 1


def _lose_frame(broken: Broken) -> None:
    broken.state.page[broken.partial + 1].page_flags &= ~PageFlag.SLAB


def _move_frame(broken: Broken) -> None:
    broken.state.page[broken.partial].mapping = 400


def _break_vm_stat(broken: Broken) -> None:
    broken.state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] += 1


def _share_slab(broken: Broken) -> None:
    broken.state.kmem_cache_cpu[broken.cache * 2].slab = broken.slab_of_cpu_1


@pytest.mark.parametrize(
    ("breaks", "finding"),
    [
        (_break_count, "handed out"),
        (_break_inuse, "inuse: is 14, but objects not on its freelist: 13"),
        (_break_link, "0x1238 is free, but no object"),
        (_break_circle, "is free twice"),
        (_break_freelist_of_cpu, "is free, but no object"),
        (_lose_partial_list, "frozen True: on 0 lists"),
        (_list_full_slab, "frozen False: on 1 lists"),
        (_break_node_count, "total_objects"),
        (_lose_frame, "is flagged SLAB or part of a slab, not both"),
        (_move_frame, "belongs to cache 400, which is none"),
        (_break_vm_stat, "NR_SLAB_UNRECLAIMABLE"),
        (_share_slab, "on 2 lists"),
    ],
)
def test_what_is_broken_is_found(breaks: Callable[[Broken], None], finding: str) -> None:
    broken = Broken()
    breaks(broken)
    assert finding in "\n".join(check_slub(broken.state))
