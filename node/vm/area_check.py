"""What must hold of areas' trees and of what is counted of areas, at any time when no kernel runs.

    - an address space's tree has the areas of its list, and each knows its gap and the largest below it
    - an anon_vma's tree or list has the chains that lead to it; it counts the areas that fill it, and its children
    - an address space's sizes are its areas', and Committed_AS is what areas and shared memory have promised

Written apart from the kernels: everything is computed anew from the areas.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob, VmStat
from node.findings import differ, used_records, walk_list
from node.pool import Pool
from node.rb_max_check import check_tree
from node.tree_nodes import NodePart, first_node, root_of
from node.vm.anon_vma import RmapWalk
from node.vm.mappings import living_mms
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

_PRIVATE_WRITE: Final = VmFlag.WRITE | VmFlag.SHARED | VmFlag.GROWSDOWN
_CODE: Final = VmFlag.EXEC | VmFlag.WRITE | VmFlag.GROWSDOWN


def check_areas(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with the trees and counts of areas; their lists are in order."""
    wrong: list[str] = []
    for mm_index in living_mms(state).tolist():
        wrong += _check_mm_tree(state, mm_index) + _check_sizes(state, mm_index)
    return wrong + _check_anon_vmas(state) + _check_committed(state)


def _areas_of(state: "State", mm_index: int) -> list[int]:
    following = state.vma["next"][: state.pool[Pool.VMA].mark].tolist()
    return walk_list(int(state.mm[mm_index].first_vma), following)


def all_areas(state: "State") -> list[int]:
    """Return the areas that are in use."""
    return [int(index) for index in np.flatnonzero(used_records(state, Pool.VMA))]


# --- address spaces -------------------------------------------------------------------------------------


def _start_gap(state: "State", index: int) -> int:
    vma = state.vma[index]
    guard = int(state.knob[Knob.STACK_GUARD_PAGES]) << PAGE_SHIFT
    return max(int(vma.start) - guard, 0) if vma.vm_flags & VmFlag.GROWSDOWN else int(vma.start)


def _check_mm_tree(state: "State", mm_index: int) -> list[str]:
    base = first_node(state, NodePart.AREA_BY_ADDRESS)
    expected = {}
    behind = 0
    members = _areas_of(state, mm_index)
    for index in members:
        expected[base + index] = (int(state.vma[index].start), _start_gap(state, index) - behind)
        behind = int(state.vma[index].end)
    wrong = check_tree(state, f"tree of mm {mm_index}", root_of(state, Pool.MM, mm_index), expected)
    last = int(state.mm[mm_index].last_found)
    if last != NIL and last not in members:
        wrong.append(f"mm {mm_index}.last_found: is area {last}, which is not its own")
    return wrong


def _check_sizes(state: "State", mm_index: int) -> list[str]:
    sizes = dict.fromkeys(("total_vm", "data_vm", "exec_vm", "stack_vm", "locked_vm"), 0)
    for index in _areas_of(state, mm_index):
        vma = state.vma[index]
        nr_pages = (int(vma.end) - int(vma.start)) >> PAGE_SHIFT
        sizes["total_vm"] += nr_pages
        if vma.vm_flags & VmFlag.LOCKED:
            sizes["locked_vm"] += nr_pages
        if vma.vm_flags & _CODE == VmFlag.EXEC:
            sizes["exec_vm"] += nr_pages
        elif vma.vm_flags & VmFlag.GROWSDOWN:
            sizes["stack_vm"] += nr_pages
        elif vma.vm_flags & _PRIVATE_WRITE == VmFlag.WRITE:
            sizes["data_vm"] += nr_pages
    wrong: list[str] = []
    for name, nr_pages in sizes.items():
        wrong += differ(
            f"mm {mm_index}.{name}", int(getattr(state.mm[mm_index], name)), nr_pages, "pages of its areas"
        )
    return wrong


def _check_committed(state: "State") -> list[str]:
    promised = 0
    for index in all_areas(state):
        vma = state.vma[index]
        if vma.vm_flags & VmFlag.ACCOUNT:
            promised += (int(vma.end) - int(vma.start)) >> PAGE_SHIFT
    for inode in np.flatnonzero(used_records(state, Pool.INODE)):
        promised += int(state.inode[int(inode)].nr_committed)
    return differ("NR_COMMITTED", int(state.vm_stat[VmStat.NR_COMMITTED]), promised, "pages promised")


# --- anon_vmas ------------------------------------------------------------------------------------------


def _check_anon_vmas(state: "State") -> list[str]:
    base = first_node(state, NodePart.CHAIN)
    following = state.anon_vma_chain["next_of_vma"][: state.pool[Pool.ANON_VMA_CHAIN].mark].tolist()
    by_anon_vma: dict[int, dict[int, tuple[int, int]]] = {}
    fills: dict[int, int] = {}
    wrong: list[str] = []
    for index in all_areas(state):
        vma = state.vma[index]
        nr_pages = (int(vma.end) - int(vma.start)) >> PAGE_SHIFT
        mine = set()
        for chain in walk_list(int(vma.first_chain), following):
            anon_vma = int(state.anon_vma_chain[chain].anon_vma)
            mine.add(anon_vma)
            key = int(vma.pgoff), int(vma.pgoff) + nr_pages - 1
            by_anon_vma.setdefault(anon_vma, {})[base + chain] = key
        if vma.anon_vma:
            fills[int(vma.anon_vma)] = fills.get(int(vma.anon_vma), 0) + 1
            if vma.anon_vma not in mine:
                wrong.append(f"area {index}: fills anon_vma {vma.anon_vma}, on which it does not hang")
    nr_children: dict[int, int] = {}
    for anon_vma in by_anon_vma:
        parent = int(state.anon_vma[anon_vma].parent)
        nr_children[parent] = nr_children.get(parent, 0) + 1
    for index in np.flatnonzero(used_records(state, Pool.ANON_VMA)).tolist():
        wrong += _check_anon_vma(state, int(index), by_anon_vma.get(int(index), {}))
        record = state.anon_vma[int(index)]
        name = f"anon_vma {index}"
        wrong += differ(
            f"{name}.nr_active_vmas", int(record.nr_active_vmas), fills.get(int(index), 0), "areas"
        )
        wrong += differ(
            f"{name}.nr_children", int(record.nr_children), nr_children.get(int(index), 0), "found"
        )
    return wrong


def _check_anon_vma(state: "State", index: int, chains: dict[int, tuple[int, int]]) -> list[str]:
    """Check that an anon_vma finds exactly the chains that lead to it."""
    name = f"anon_vma {index}"
    if state.knob[Knob.RMAP_WALK] == RmapWalk.TREE:
        return check_tree(state, f"tree of {name}", root_of(state, Pool.ANON_VMA, index), chains)
    following = state.anon_vma_chain["next"][: state.pool[Pool.ANON_VMA_CHAIN].mark].tolist()
    base = first_node(state, NodePart.CHAIN)
    members = walk_list(int(state.anon_vma[index].first_chain), following)
    if sorted(base + member for member in members) != sorted(chains):
        return [f"{name}: its list has the chains {members}, not {sorted(node - base for node in chains)}"]
    last = int(state.anon_vma[index].last_chain)
    if members and last != members[-1]:
        return [f"{name}: its list ends with {members[-1]}, not {last}"]
    return [
        f"{name}: chain {member} has {state.anon_vma_chain[member].prev} before it, not {before}"
        for before, member in zip([NIL, *members], members, strict=False)
        if state.anon_vma_chain[member].prev != before
    ]
