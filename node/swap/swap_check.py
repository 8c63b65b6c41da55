"""What must hold of swap when no kernel runs.

- a slot's users are the page-table entries that name it
- a slot is said to hold a page table if one entry above the last level names it, and that table maps nothing
- a slot and its frame in the swap cache name each other
- what is counted, listed and bounded is what the slots say
- a clean frame of the swap cache holds what its slot holds
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmStat
from node.findings import Ints, differ, each, walk_list
from node.hw.pte import Pte
from node.phys.page import PageFlag
from node.swap.slots import SWAPFILE_CLUSTER, SWAPFILE_CLUSTER_SHIFT, nr_clusters
from node.vm.mappings import Mappings

if TYPE_CHECKING:
    from node.state import State


def check_swap(state: "State", mappings: Mappings) -> list[str]:
    """Return one line for each thing that is wrong with the swap area and the swap cache."""
    nr_slots = state.swap_area[0].nr_slots
    swapped = ~mappings.present
    slots = mappings.slot[swapped]
    tables = mappings.table_slot
    wrong = each(
        tables[(tables < 1) | (tables >= nr_slots)],
        f"a swapped-out page table: is in slot {{}} of {nr_slots}".format,
    )
    outside = (slots < 1) | (slots >= nr_slots)
    wrong += each(
        np.flatnonzero(swapped)[outside],
        lambda i: f"{mappings.name(i)}: names slot {mappings.slot[i]} of {nr_slots}",
    )
    if wrong or nr_slots == 0:
        return wrong
    users = state.swap_slot["nr_users"]
    entries = np.bincount(slots, minlength=len(users)) + np.bincount(tables, minlength=len(users))
    wrong += each(
        np.flatnonzero(users != entries),
        lambda slot: f"slot {slot}.nr_users: is {users[slot]}, but entries: {entries[slot]}",
    )
    wrong += _check_tables(state, tables)
    return wrong + _check_cache(state, mappings) + _check_area(state) + _check_writes(state)


def _check_tables(state: "State", tables: Ints) -> list[str]:
    """Check the slots that hold page tables, and what those hold."""
    counted = np.bincount(tables, minlength=len(state.swap_slot))
    flagged = state.swap_slot["is_table"]
    wrong = each(
        np.flatnonzero(flagged != counted),
        lambda slot: (
            f"slot {slot}.is_table: is {flagged[slot]}, but upper entries that name it: {counted[slot]}"
        ),
    )
    if len(tables) == 0:
        return wrong
    words = np.asarray(state.slot_word).reshape(len(state.swap_slot), -1)[tables]
    wrong += each(
        tables[(words & Pte.PRESENT != 0).any(axis=1)],
        "slot {}: holds a page table with an entry that is present".format,
    )
    return wrong + each(tables[~words.any(axis=1)], "slot {}: holds an empty page table".format)


def _check_cache(state: "State", mappings: Mappings) -> list[str]:
    pages = state.page
    slots = state.swap_slot
    cached_pfn = slots["cached_pfn"]
    frames = np.flatnonzero(pages["page_flags"] & PageFlag.SWAPCACHE)
    private = pages["private"][frames]
    wrong = each(
        frames[(private < 1) | (private >= len(cached_pfn))],
        lambda pfn: f"frame {pfn}: is cached for slot {pages[pfn].private}",
    )
    wrong += differ(
        "NR_SWAPCACHED", state.vm_stat[VmStat.NR_SWAPCACHED], len(frames), "frames in the swap cache"
    )
    if wrong:
        return wrong
    wrong += each(
        frames[cached_pfn[private] != frames],
        lambda pfn: f"frame {pfn}: is cached for slot {pages[pfn].private}, which names another frame",
    )
    named = np.flatnonzero(cached_pfn)
    backed = np.isin(cached_pfn[named], frames)
    wrong += each(
        named[~backed],
        lambda slot: f"slot {slot}: names frame {cached_pfn[slot]}, which is not in the swap cache",
    )
    dirty = pages["page_flags"] & PageFlag.DIRTY != 0
    dirty[mappings.pfn[mappings.present & (mappings.pte & Pte.DIRTY != 0)]] = True
    clean = frames[~dirty[frames]]
    differs = pages["content"][clean] != slots["content"][pages["private"][clean]]
    return wrong + each(
        clean[differs],
        lambda pfn: f"frame {pfn}: is clean, but its slot {pages[pfn].private} holds another content",
    )


def _check_area(state: "State") -> list[str]:
    area = state.swap_area[0]
    in_use = (state.swap_slot["nr_users"] != 0) | (state.swap_slot["cached_pfn"] != 0)
    nr_used = int(in_use.sum())
    wrong = differ("swap_area.nr_used", area.nr_used, nr_used, "slots in use")
    wrong += differ("NR_SWAP_USED", state.vm_stat[VmStat.NR_SWAP_USED], nr_used, "slots in use")
    free = np.flatnonzero(~in_use[: area.nr_slots])[1:]  # slot 0 is the header
    outside = free[(free < area.lowest_free) | (free > area.highest_free)]
    wrong += each(
        outside, lambda slot: f"slot {slot}: is free outside {area.lowest_free}..{area.highest_free}"
    )
    return wrong if area.rotational else wrong + _check_clusters(state, in_use)


def _check_clusters(state: "State", in_use: Ints) -> list[str]:
    area = state.swap_area[0]
    clusters = state.swap_cluster
    count = nr_clusters(area.nr_slots)
    counted = np.bincount(np.flatnonzero(in_use) >> SWAPFILE_CLUSTER_SHIFT, minlength=count)
    counted[0] += 1
    counted[count - 1] += count * SWAPFILE_CLUSTER - area.nr_slots
    nr_used = clusters["nr_used"][:count]
    wrong = each(
        np.flatnonzero(nr_used != counted),
        lambda index: (
            f"swap cluster {index}.nr_used: is {nr_used[index]}, but slots in use: {counted[index]}"
        ),
    )
    listed = walk_list(area.first_free_cluster, clusters["next"].tolist(), none=0)
    if len(set(listed)) != len(listed):
        return [*wrong, "swap clusters: the list of free ones is a circle"]
    if listed and listed[-1] != area.last_free_cluster:
        wrong.append(f"swap clusters: the free ones end with {listed[-1]}, but say {area.last_free_cluster}")
    flagged = set(np.flatnonzero(clusters["is_free"]).tolist())
    wrong += each(
        sorted(flagged ^ set(listed)),
        lambda index: f"swap cluster {index}: is listed as free or flagged so, not both",
    )
    empty = set(np.flatnonzero(nr_used == 0).tolist())
    return wrong + each(
        sorted(flagged ^ empty), lambda index: f"swap cluster {index}: is empty or free, not both"
    )


def _check_writes(state: "State") -> list[str]:
    area = state.swap_area[0]
    order = (area.first_write + np.arange(area.nr_writes)) % len(state.writeback)
    writes = np.asarray(state.writeback)[order]
    flagged = np.flatnonzero(state.page["page_flags"] & PageFlag.WRITEBACK)
    wrong = differ("NR_WRITEBACK", state.vm_stat[VmStat.NR_WRITEBACK], area.nr_writes, "writes under way")
    if sorted(writes["pfn"].tolist()) != flagged.tolist():
        wrong.append(
            f"writeback: the ring has {area.nr_writes} frames, {len(flagged)} are flagged so, and they differ"
        )
    if (np.diff(writes["done_ps"]) < 0).any():
        wrong.append("writeback: the ring is not in the order of completion")
    return wrong
