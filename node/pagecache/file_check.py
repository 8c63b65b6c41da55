"""What must hold of files and of shared memory at any time when no kernel runs.

    - a file's tree has the areas that map it, each at its place in the file
    - the pages of its radix tree are those that say that they are of it; the levels of /proc/vmstat are their sums

Written apart from the kernels: everything is computed anew from the areas and the trees.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmStat
from node.findings import differ, used_records
from node.inode_kind import InodeKind
from node.pagecache.radix_tree import RADIX_SHIFT, RADIX_SLOTS
from node.phys.page import PageFlag
from node.pool import Pool
from node.rb_max_check import check_tree
from node.tree_nodes import NodePart, first_node, root_of
from node.vm.area_check import all_areas
from shared.constants import PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State


def _pages_of_file(state: "State", inode: int) -> dict[int, int]:
    """Return the frames of a file's tree by page number."""
    record = state.inode[inode]
    level = {0: int(record.radix_root)} if record.radix_root else {}
    for _ in range(int(record.radix_height)):
        level = {
            index << RADIX_SHIFT | slot: int(state.radix_slot[node << RADIX_SHIFT | slot])
            for index, node in level.items()
            for slot in range(RADIX_SLOTS)
            if state.radix_slot[node << RADIX_SHIFT | slot]
        }
    return level


def check_files(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with files, their pages and the areas that map them."""
    base = first_node(state, NodePart.AREA_BY_PLACE)
    by_inode: dict[int, dict[int, tuple[int, int]]] = {}
    for index in all_areas(state):
        vma = state.vma[index]
        if vma.inode:
            nr_pages = (int(vma.end) - int(vma.start)) >> PAGE_SHIFT
            key = int(vma.pgoff), int(vma.pgoff) + nr_pages - 1
            by_inode.setdefault(int(vma.inode), {})[base + index] = key
    inodes = [int(inode) for inode in np.flatnonzero(used_records(state, Pool.INODE))]
    wrong = [f"area maps inode {inode}, which is none" for inode in by_inode if inode not in inodes]
    nr_cached = dict.fromkeys(InodeKind, 0)
    for inode in inodes:
        record = state.inode[inode]
        users = by_inode.get(inode, {})
        name = f"inode {inode}"
        wrong += check_tree(state, f"tree of {name}", root_of(state, Pool.INODE, inode), users)
        if record.refcount < max(len(users), 1):
            wrong.append(f"{name}.refcount: is {record.refcount}, but {len(users)} areas map it")
        pages = _pages_of_file(state, inode)
        wrong += differ(f"{name}.nr_cached", int(record.nr_cached), len(pages), "pages in its tree")
        nr_cached[InodeKind(int(record.kind))] += len(pages)
        for index, pfn in pages.items():
            page = state.page[pfn]
            if not page.page_flags & PageFlag.CACHED or (page.mapping, page.index) != (inode, index):
                wrong.append(f"{name}, page {index}: frame {pfn} does not say that it is that page")
    wrong += differ("NR_SHMEM", int(state.vm_stat[VmStat.NR_SHMEM]), nr_cached[InodeKind.SHMEM], "in trees")
    file_pages = int(state.vm_stat[VmStat.NR_FILE_PAGES])
    return wrong + differ("NR_FILE_PAGES", file_pages, sum(nr_cached.values()), "pages of files in trees")
