"""The check of vmalloc's areas finds what is wrong with them."""

from collections.abc import Callable

import pytest

from node.build import build_state
from node.counters import Knob, VmStat
from node.joints import vfree, vmalloc
from node.kalloc.vmallocinfo import areas_in, frames_of_area
from node.kalloc.vmap_area import VmapCaller, VmapStat
from node.kalloc.vmap_check import check_vmap, unpurged_ranges
from node.phys.page import PageFlag
from node.rbtree import Tree
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, PAGE_SIZE
from shared.gfp_flags import GFP_KERNEL

pytestmark = pytest.mark.three_ways


def machine() -> State:
    """Return a machine with areas of 1 to 7 pages, of which those of 3 and 6 wait for their flush."""
    state = build_state(MachineSpec(memory_bytes=72 * MIB))
    areas = [vmalloc(state, pages * PAGE_SIZE, GFP_KERNEL, VmapCaller.UNKNOWN) for pages in range(1, 8)]
    for index in (2, 5):
        vfree(state, areas[index])
    return state


def shrink(state: State) -> None:
    state.vmap_area[areas_in(state, Tree.BUSY_VMAP)[1]].end -= PAGE_SIZE


def overlap(state: State) -> None:
    state.vmap_area[areas_in(state, Tree.LAZY_VMAP)[0]].end += PAGE_SIZE


def forget_largest(state: State) -> None:
    state.rb_max[int(state.rb_root[Tree.FREE_VMAP])].largest = 0


def other_key(state: State) -> None:
    state.rb_node[int(state.rb_root[Tree.FREE_VMAP])].key += 1


def other_tree(state: State) -> None:
    state.vmap_area[areas_in(state, Tree.BUSY_VMAP)[0]].tree = Tree.LAZY_VMAP


def unmap(state: State) -> None:
    index = areas_in(state, Tree.BUSY_VMAP)[0]
    frame = next(iter(frames_of_area(state, index).values()))
    words = state.pt_word
    tables = (state.page["page_flags"] & (PageFlag.PAGE_TABLE | PageFlag.KERNEL)) == (
        PageFlag.PAGE_TABLE | PageFlag.KERNEL
    )
    for pfn in tables.nonzero()[0].tolist():
        for position in range(pfn << 9, (pfn + 1) << 9):
            if int(words[position]) >> 12 & ((1 << 40) - 1) == frame:
                words[position] = 0


def lose_a_record(state: State) -> None:
    state.rb_root[Tree.LAZY_VMAP] = state.rb_root[Tree.BUSY_VMAP]


def miscount_lazy(state: State) -> None:
    state.vmap_stat[VmapStat.LAZY_PAGES] += 1


def miscount_tables(state: State) -> None:
    state.vmap_stat[VmapStat.KERNEL_TABLES] += 1


def miscount_frames(state: State) -> None:
    state.vm_stat[VmStat.NR_VMALLOC] -= 1


def unflag(state: State) -> None:
    frame = next(iter(frames_of_area(state, areas_in(state, Tree.BUSY_VMAP)[0]).values()))
    state.page[frame].page_flags &= ~PageFlag.VMALLOC


BREAKS: list[tuple[Callable[[State], None], str]] = [
    (shrink, "leaves a gap"),
    (overlap, "overlaps"),
    (forget_largest, "largest"),
    (other_key, "as key and own"),
    (other_tree, "says that it is in another"),
    (unmap, "pages mapped"),
    (lose_a_record, "are in the trees"),
    (miscount_lazy, "LAZY_PAGES"),
    (miscount_tables, "KERNEL_TABLES"),
    (miscount_frames, "NR_VMALLOC"),
    (unflag, "they differ"),
]


@pytest.mark.parametrize(("damage", "said"), BREAKS, ids=[damage.__name__ for damage, _ in BREAKS])
def test_damage_is_found(damage: Callable[[State], None], said: str) -> None:
    state = machine()
    assert check_vmap(state) == []
    damage(state)
    assert any(said in line for line in check_vmap(state)), check_vmap(state)


def test_what_waits_is_known_by_its_addresses() -> None:
    state = machine()
    start = int(state.knob[Knob.VMALLOC_START])
    # Areas of 2, 3, 4 .. pages, guard pages included: the third begins behind 5, the sixth behind 20.
    assert unpurged_ranges(state) == [
        (start + 5 * PAGE_SIZE, start + 9 * PAGE_SIZE),
        (start + 20 * PAGE_SIZE, start + 27 * PAGE_SIZE),
    ]
