"""What must hold of kernel addresses: no two areas overlap, no address is lost, entries lead to the right frames.

Written apart from the kernels: areas are read from the trees in order, entries by a walk of their own.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob, VmStat
from node.findings import differ, each, used_records
from node.hw.paging import MIN_LEVELS_64
from node.kalloc.vmallocinfo import areas_in, frames_of_area
from node.kalloc.vmap_area import VmapFlag, VmapStat
from node.kalloc.vmap_space import GUARD_BYTES
from node.phys.page import PageFlag
from node.pool import Pool
from node.rb_max_check import check_tree
from node.rbtree import Tree
from node.rbtree_check import tree_in_order
from node.tree_nodes import NodePart, first_node
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

TREES = (Tree.FREE_VMAP, Tree.BUSY_VMAP, Tree.LAZY_VMAP)


def check_vmap(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with vmalloc's areas."""
    wrong: list[str] = []
    for tree in TREES:
        wrong += tree_in_order(state, tree)[1]
    if wrong:
        return wrong
    areas = {tree: areas_in(state, tree) for tree in TREES}
    records = [index for tree in TREES for index in areas[tree]]
    used = np.flatnonzero(used_records(state, Pool.VMAP_AREA)).tolist()
    if sorted(records) != used:
        return [f"vmap areas: {len(records)} are in the trees, {len(used)} records handed out"]
    for tree in TREES:
        wrong += each(
            [index for index in areas[tree] if state.vmap_area[index].tree != tree],
            f"vmap area {{}}: is in the {tree.name} tree, and says that it is in another".format,
        )
    return wrong + _check_cover(state, areas) + _check_trees(state, areas) + _check_entries(state, areas)


def unpurged_ranges(state: "State") -> list[tuple[int, int]]:
    """Return the addresses whose translations may be stale in any TLB: areas that wait for their flush."""
    if not state.vmap_stat[VmapStat.LAZY_PAGES]:
        return []
    areas = areas_in(state, Tree.LAZY_VMAP)
    return [(state.vmap_area[index].start, state.vmap_area[index].end) for index in areas]


def _regions(state: "State") -> list[tuple[int, int]]:
    knob = state.knob
    if knob[Knob.NR_LEVELS] == 0:
        return []
    regions = [(int(knob[Knob.VMALLOC_START]), int(knob[Knob.VMALLOC_LAST]) + 1)]
    if knob[Knob.NR_LEVELS] >= MIN_LEVELS_64:
        regions.append((int(knob[Knob.MODULES_START]), int(knob[Knob.MODULES_LAST]) + 1))
    return regions


def _check_cover(state: "State", areas: dict[Tree, list[int]]) -> list[str]:
    """Check that free, used and waiting areas fill the regions exactly, and that free ones are merged."""
    rows = sorted(
        (state.vmap_area[i].start, state.vmap_area[i].end, tree) for tree in TREES for i in areas[tree]
    )
    if not rows:
        return []  # a state that is not a built machine's has no areas at all
    wrong = []
    for start, end, tree in rows:
        if start >= end or (start | end) & PAGE_OFFSET_MASK:
            wrong.append(f"vmap area {start:#x}-{end:#x} of {tree.name}: is empty, or not of whole pages")
    borders = dict(_regions(state))
    at = NIL
    before = Tree.BUSY_VMAP
    for start, end, tree in rows:
        if at == NIL:
            at = start
            if start not in borders:
                return [*wrong, f"vmap area {start:#x}: begins where no region does"]
            region_end = borders.pop(start)
        elif tree == before and tree != Tree.BUSY_VMAP:
            wrong.append(f"vmap area {start:#x}: is a neighbour of another of {tree.name}, yet they are two")
        if start != at:
            return [*wrong, f"vmap area {start:#x}-{end:#x}: overlaps, or leaves a gap, at {at:#x}"]
        before = tree
        at = NIL if end == region_end else end
    if at != NIL or borders:
        wrong.append("vmap areas: do not fill their regions")
    lazy = sum(state.vmap_area[i].end - state.vmap_area[i].start for i in areas[Tree.LAZY_VMAP]) >> PAGE_SHIFT
    return wrong + differ("vmap LAZY_PAGES", int(state.vmap_stat[VmapStat.LAZY_PAGES]), lazy, "waiting pages")


def _check_trees(state: "State", areas: dict[Tree, list[int]]) -> list[str]:
    """Check the trees against their areas: where each lies, its size, and the largest size below it."""
    base = first_node(state, NodePart.VMAP_AREA)
    wrong: list[str] = []
    for tree in TREES:
        borders = {index: state.vmap_area[index] for index in areas[tree]}
        expected = {
            base + index: (int(area.start), int(area.end - area.start)) for index, area in borders.items()
        }
        wrong += check_tree(state, f"{tree.name} tree", tree, expected)
    return wrong


def _check_entries(state: "State", areas: dict[Tree, list[int]]) -> list[str]:
    """Check that areas in use are mapped, but for their guard pages, and that the others are not."""
    wrong: list[str] = []
    owned: list[int] = []
    for index in areas[Tree.BUSY_VMAP]:
        area = state.vmap_area[index]
        mapped = frames_of_area(state, index)
        expected = (area.end - area.start - GUARD_BYTES) >> PAGE_SHIFT
        name = f"vmap area {area.start:#x}"
        wrong += differ(f"{name}: pages mapped", len(mapped), expected, "its pages")
        if area.end - GUARD_BYTES in mapped:
            wrong.append(f"{name}: its guard page is mapped")
        if area.vmap_flags & VmapFlag.ALLOC:
            wrong += differ(f"{name}.nr_pages", area.nr_pages, len(mapped), "pages mapped")
            owned += mapped.values()
        elif area.vmap_flags & VmapFlag.IOREMAP:
            frames = [(area.paddr >> PAGE_SHIFT) + page for page in range(len(mapped))]
            if list(mapped.values()) != frames:
                wrong.append(f"{name}: does not map {area.paddr:#x} page by page")
    for index in areas[Tree.LAZY_VMAP]:
        if frames_of_area(state, index):
            wrong.append(f"vmap area {state.vmap_area[index].start:#x}: waits to be flushed, and is mapped")
    flagged = np.flatnonzero(state.page["page_flags"] & PageFlag.VMALLOC)
    tables = (
        state.page["page_flags"] & (PageFlag.PAGE_TABLE | PageFlag.KERNEL)
        == PageFlag.PAGE_TABLE | PageFlag.KERNEL
    )
    nr_tables = int(state.vmap_stat[VmapStat.KERNEL_TABLES])
    wrong += differ(
        "vmap KERNEL_TABLES", nr_tables, int(tables.sum()), "tables of the kernel made since boot"
    )
    if sorted(owned) != flagged.tolist():
        wrong.append(f"vmalloc: {len(owned)} frames are mapped, {len(flagged)} flagged so, and they differ")
    return wrong + differ("NR_VMALLOC", int(state.vm_stat[VmStat.NR_VMALLOC]), len(owned), "frames of areas")
