"""Which part of each table is used: what a checkpoint keeps, and a digest covers.

Tables are reserved at their upper bounds, and most of that is never touched. A table's rule is what ``node.state``
says of it:

    all           every record
    MM, VMA ...   a pool's records, up to its high-water mark
    pool_links    every pool's links, up to its mark
    page_tables   the words of every frame that is a page table
    slabs         the words of every frame that an object allocator has
    slab_arrays   the entries of every cache's arrays, where SLAB is the allocator
    slot_tables   the words of every swap slot that holds a page table
    rb            the tree nodes of used records, pool after pool; rb_max and rb_roots likewise
    radix_slots   the slots of used nodes of files' trees
    marked        frames that were marked in this epoch; likewise violations, view_changes, late_reads
    scratch       nothing: what a kernel leaves there, no later call reads

The rules read tables that stand before theirs in the state, so restoring applies the same rules to what it
has restored so far. A record behind its mark is one of zeroes, as in the machine that was kept.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.counters import Current, Knob
from node.kalloc.slab_numbers import used_entries
from node.pagecache.radix_tree import RADIX_SHIFT
from node.phys.page import PageFlag
from node.pool import Pool
from node.rbtree import Tree
from node.state import State
from node.tree_nodes import NODE_POOLS, ROOT_POOLS

Table = npt.NDArray[Any]
Rule = Callable[[State, Table], Iterator[Table]]


def _all(_state: State, table: Table) -> Iterator[Table]:
    yield table


def _nothing(_state: State, _table: Table) -> Iterator[Table]:
    return iter(())


def _of_pool(which: Pool) -> Rule:
    def used(state: State, table: Table) -> Iterator[Table]:
        yield table[: state.pool[which].mark]

    return used


def _of_frames_with(flag: int) -> Rule:
    def used(state: State, table: Table) -> Iterator[Table]:
        frames = table.reshape(len(state.page), -1)
        for pfn in np.flatnonzero(state.page["page_flags"] & flag):
            yield frames[pfn]

    return used


def _counted_by(current: int) -> Rule:
    def used(state: State, table: Table) -> Iterator[Table]:
        yield table[: state.current[current]]

    return used


def _slab_arrays(state: State, _table: Table) -> Iterator[Table]:
    yield from used_entries(state)


def _slot_tables(state: State, table: Table) -> Iterator[Table]:
    nr_words = 1 << int(state.knob[Knob.TABLE_SHIFT])
    for slot in np.flatnonzero(state.swap_slot["is_table"]).tolist():
        yield table[slot * nr_words : (slot + 1) * nr_words]


def _pool_links(state: State, table: Table) -> Iterator[Table]:
    for which in range(Pool.NR):
        pool = state.pool[which]
        yield table[pool.first_link : pool.first_link + pool.mark]


def _tree_nodes(state: State, table: Table) -> Iterator[Table]:
    first = 0
    for which in NODE_POOLS:
        pool = state.pool[which]
        yield table[first : first + pool.mark]
        first += pool.capacity


def _tree_values(state: State, table: Table) -> Iterator[Table]:
    """Yield the values of those trees that keep some: none of KSM's do."""
    first = 0
    for which in NODE_POOLS:
        pool = state.pool[which]
        if which not in (Pool.RMAP_ITEM, Pool.STABLE_NODE):
            yield table[first : first + pool.mark]
        first += pool.capacity


def _tree_roots(state: State, table: Table) -> Iterator[Table]:
    yield table[: Tree.NR]
    first = int(Tree.NR)
    for which in ROOT_POOLS:
        pool = state.pool[which]
        yield table[first : first + pool.mark]
        first += pool.capacity


def _radix_slots(state: State, table: Table) -> Iterator[Table]:
    yield table[: state.pool[Pool.RADIX_NODE].mark << RADIX_SHIFT]


RULES: Final[dict[str, Rule]] = {
    "all": _all,
    **{which.name: _of_pool(which) for which in Pool if which is not Pool.NR},
    "page_tables": _of_frames_with(PageFlag.PAGE_TABLE),
    "slabs": _of_frames_with(PageFlag.SLAB),
    "slab_arrays": _slab_arrays,
    "slot_tables": _slot_tables,
    "pool_links": _pool_links,
    "rb": _tree_nodes,
    "rb_max": _tree_values,
    "rb_roots": _tree_roots,
    "radix_slots": _radix_slots,
    "marked": _counted_by(Current.NR_MARKED),
    "violations": _counted_by(Current.NR_VIOLATIONS),
    "view_changes": _counted_by(Current.NR_VIEW_CHANGES),
    "late_reads": _counted_by(Current.NR_LATE_READS),
    "scratch": _nothing,
}


def used_parts(state: State, name: str) -> Iterator[Table]:
    """Yield the used parts of a table, as views of it, in ascending order."""
    return RULES[state.LAYOUT[name].used](state, np.asarray(vars(state)[name]))
