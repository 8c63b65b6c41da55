"""What must hold of KSM when no kernel runs: its lists, trees and counters, and the pages that it merged.

A stable node knows its frame without holding it, so a node may be stale: its frame has gone, and the next
look at it removes it. What is said of merged pages holds for nodes that are not.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob, KsmStat
from node.findings import Ints, differ, each, linked_list, used_records, walk_list
from node.hw.pte import Pte
from node.ksm.records import ItemPlace, KsmCompare
from node.ksm.registry import HEAD
from node.ksm.stable_tree import IS_CHAIN, NO_NODE
from node.phys.page import PageFlag
from node.pool import Pool
from node.rbtree import Tree
from node.rbtree_check import tree_in_order
from node.vm.mappings import Mappings
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State


def check_ksm(state: "State", mappings: Mappings) -> list[str]:
    """Return one line for each thing that is wrong with KSM."""
    listed, wrong = _check_items(state)
    wrong += _check_mm_list(state)
    wrong += _check_unstable_tree(state, listed)
    wrong += _check_stable_tree(state)
    return wrong + _check_merged_pages(state, mappings)


def held_anon_vmas(state: "State") -> Ints:
    """Return the anon_vma that each sharing rmap_item holds."""
    used = used_records(state, Pool.RMAP_ITEM)
    sharing = used & (state.rmap_item["where"][: len(used)] == ItemPlace.STABLE_NODE)
    held: Ints = state.rb_node["owner"][: len(used)][sharing]
    return held


# --- lists ----------------------------------------------------------------------------------------------


def _check_items(state: "State") -> tuple[set[int], list[str]]:
    """Check each address space's rmap_items; return those that are on a list."""
    used = used_records(state, Pool.RMAP_ITEM)
    following = state.rmap_item["next_in_mm"][: len(used)].tolist()
    listed: list[int] = []
    wrong: list[str] = []
    for mm_index in np.flatnonzero(used_records(state, Pool.MM)).tolist():
        name = f"mm {mm_index}"
        mm = state.mm[mm_index]
        members = walk_list(mm.ksm_rmap_list, following)
        if len(members) > len(following) or not all(
            0 <= index < len(used) and used[index] for index in members
        ):
            wrong.append(
                f"{name}: its list of rmap_items is a circle, or leads to a record that is not in use"
            )
            continue
        wrong += differ(f"{name}.ksm_rmap_items", mm.ksm_rmap_items, len(members), "rmap_items on its list")
        items = np.asarray(state.rmap_item)[members]
        if (np.diff(items["vaddr"]) <= 0).any():
            wrong.append(f"{name}: its rmap_items are not in the order of their addresses")
        wrong += each(
            np.array(members)[items["mm"] != mm_index],
            f"rmap_item {{}}: is on the list of {name}".format,
        )
        merging = int((items["where"] == ItemPlace.STABLE_NODE).sum())
        wrong += differ(f"{name}.ksm_merging_pages", mm.ksm_merging_pages, merging, "rmap_items that share")
        listed += members
    wrong += differ("rmap_items", state.ksm_stat[KsmStat.RMAP_ITEMS], len(listed), "rmap_items on lists")
    return set(listed), wrong + differ("pool RMAP_ITEM", int(used.sum()), len(listed), "rmap_items on lists")


def _check_mm_list(state: "State") -> list[str]:
    used = used_records(state, Pool.MM)
    mms = np.asarray(state.mm)[: len(used)]
    scan = state.ksm_scan[0]
    ends = (scan.first_mm, scan.last_mm)
    members, wrong = linked_list(
        "ksmd's address spaces", ends, mms["ksm_next"].tolist(), mms["ksm_prev"].tolist()
    )
    mergeable = set(np.flatnonzero(used & (mms["mergeable"] != 0)).tolist())
    wrong += each(
        sorted(mergeable ^ set(members)), lambda i: f"mm {i}: is on ksmd's list or mergeable, not both"
    )
    if scan.mm not in {HEAD, *members}:
        wrong.append(f"ksmd: is at mm {scan.mm}, which is not on its list")
    return wrong


# --- trees ----------------------------------------------------------------------------------------------


def _check_unstable_tree(state: "State", listed: set[int]) -> list[str]:
    members = np.array(sorted(listed), np.int64)
    inside = members[state.rmap_item["where"][members] == ItemPlace.UNSTABLE_TREE]
    wrong = differ(
        "pages_unshared",
        state.ksm_stat[KsmStat.PAGES_UNSHARED],
        len(inside),
        "rmap_items in the unstable tree",
    )
    scan = state.ksm_scan[0]
    if scan.mm == HEAD:
        return wrong  # between two full scans the old tree stands, about to be dropped as a whole
    order, broken = tree_in_order(state, Tree.UNSTABLE)
    current = set(inside[state.rmap_item["seqnr"][inside] == scan.seqnr].tolist())
    wrong += broken
    return wrong + each(
        sorted(current ^ set(order)),
        lambda i: f"rmap_item {i}: is in the unstable tree of this scan or says so, not both",
    )


@dataclass
class _StableNodes:
    """What a walk over the stable tree finds."""

    nodes: list[int] = field(default_factory=list)  # with pages: tree nodes and dups
    chains: list[int] = field(default_factory=list)
    dups: int = 0


def _check_stable_tree(state: "State") -> list[str]:
    order, wrong = tree_in_order(state, Tree.STABLE)
    base = state.pool[Pool.RMAP_ITEM].capacity
    used = used_records(state, Pool.STABLE_NODE)
    in_tree = [index - base for index in order]
    stray = [index for index in in_tree if not 0 <= index < len(used) or not used[index]]
    if wrong or stray:
        return wrong + each(stray, lambda i: f"stable node {i}: is in the tree, but not in use")
    keys = [state.stable_node[index].key for index in in_tree]
    if any(below <= above for above, below in pairwise(keys)):
        wrong.append("STABLE tree: is not in the order of its keys")
    found = _StableNodes()
    for index in in_tree:
        wrong += _visit_tree_node(state, index, found)
    everything = found.nodes + found.chains
    if sorted(everything) != np.flatnonzero(used).tolist():
        wrong.append(
            f"stable nodes: {len(everything)} are in the tree or on chains, {int(used.sum())} are in use"
        )
    wrong += differ(
        "stable_node_chains",
        state.ksm_stat[KsmStat.STABLE_NODE_CHAINS],
        len(found.chains),
        "chains in the tree",
    )
    wrong += differ(
        "stable_node_dups", state.ksm_stat[KsmStat.STABLE_NODE_DUPS], found.dups, "nodes on chains"
    )
    return wrong + _check_sharers(state, found.nodes)


def _visit_tree_node(state: "State", index: int, found: _StableNodes) -> list[str]:
    node = state.stable_node[index]
    if node.chain != NO_NODE:
        return [f"stable node {index}: is in the tree, and on chain {node.chain}"]
    if node.nr_sharers != IS_CHAIN:
        found.nodes.append(index)
        return []
    found.chains.append(index)
    table = state.stable_node
    mark = state.pool[Pool.STABLE_NODE].mark
    following, previous = table["next_dup"][:mark].tolist(), table["prev_dup"][:mark].tolist()
    dups = walk_list(node.first_sharer, following)
    ends = (node.first_sharer, dups[-1] if dups else NIL)
    dups, wrong = linked_list(f"chain {index}", ends, following, previous)
    found.dups += len(dups)
    found.nodes += dups
    alien = [dup for dup in dups if table[dup].chain != index or table[dup].key != node.key]
    return wrong + each(
        alien, lambda dup: f"stable node {dup}: is on chain {index} with another key or chain"
    )


def _check_sharers(state: "State", nodes: list[int]) -> list[str]:
    mark = state.pool[Pool.RMAP_ITEM].mark
    items = np.asarray(state.rmap_item)[:mark]
    links = np.asarray(state.rb_node)[:mark]
    following, previous = links["left"].tolist(), links["right"].tolist()
    wrong: list[str] = []
    lengths: Counter[int] = Counter()
    for index in nodes:
        node = state.stable_node[index]
        members = walk_list(node.first_sharer, following)
        ends = (node.first_sharer, members[-1] if members else NIL)
        members, broken = linked_list(f"sharers of stable node {index}", ends, following, previous)
        wrong += broken
        lengths[len(members)] += 1
        wrong += differ(
            f"stable node {index}.nr_sharers", node.nr_sharers, len(members), "rmap_items on its list"
        )
        alien = [
            i
            for i in members
            if items["stable_node"][i] != index or items["where"][i] != ItemPlace.STABLE_NODE
        ]
        wrong += each(
            alien,
            f"rmap_item {{}}: is a sharer of stable node {index}, but says otherwise".format,
        )
    shared = sum(count for length, count in lengths.items() if length)
    total = sum(length * count for length, count in lengths.items())
    used = used_records(state, Pool.RMAP_ITEM)
    said = int((used & (items["where"] == ItemPlace.STABLE_NODE)).sum())
    wrong += differ("rmap_items that share", said, total, "on lists of stable nodes")
    wrong += differ("pages_shared", state.ksm_stat[KsmStat.PAGES_SHARED], shared, "stable nodes with sharers")
    return wrong + differ(
        "pages_sharing", state.ksm_stat[KsmStat.PAGES_SHARING], total - shared, "sharers but the first"
    )


# --- merged pages ---------------------------------------------------------------------------------------


def _check_merged_pages(state: "State", mappings: Mappings) -> list[str]:
    page_flags = state.page["page_flags"]
    merged = np.flatnonzero((page_flags & PageFlag.KSM != 0) & (state.page["mapping"] != NO_NODE))
    used = used_records(state, Pool.STABLE_NODE)
    node = state.page["mapping"][merged]
    known = (node > 0) & (node < len(used))
    known[known] &= used[node[known]]
    known[known] &= state.stable_node["pfn"][node[known]] == merged[known]
    wrong = each(
        merged[~known],
        lambda pfn: f"frame {pfn}: is merged as stable node {state.page[pfn].mapping}, which is not its",
    )
    if state.knob[Knob.KSM_COMPARE] == KsmCompare.CONTENT:
        pfns, nodes = merged[known], node[known]
        changed = pfns[state.page["content"][pfns] != state.stable_node["key"][nodes]]
        wrong += each(
            changed,
            lambda pfn: f"frame {pfn}: is merged, but its content is not its stable node's key any more",
        )
    protected = page_flags[mappings.pfn * mappings.present] & PageFlag.KSM == 0
    unsafe = mappings.present & ~protected & (mappings.pte & Pte.WRITE != 0)
    return wrong + each(
        np.flatnonzero(unsafe),
        lambda i: f"{mappings.name(i)}: may write merged frame {mappings.pfn[i]}",
    )
