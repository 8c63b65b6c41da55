"""What must hold of free frames at any time: the buddy system's blocks, the per-CPU lists, and their counts.

Written apart from the kernels, with numpy over whole tables.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmStat
from node.findings import Ints, differ, each, linked_list
from node.phys.buddy import MAX_ORDER, NR_ORDERS
from node.phys.page import PageFlag
from node.phys.zone import NR_ZONES, ZoneId

if TYPE_CHECKING:
    from node.state import State


def free_block_cover(state: "State") -> Ints:
    """Return, for each frame, how many free blocks hold it."""
    heads, orders = _blocks(state)
    nr_frames = len(state.page)
    borders = np.zeros(nr_frames + 1, np.int64)
    np.add.at(borders, heads, 1)
    np.add.at(borders, np.minimum(heads + (1 << orders), nr_frames), -1)
    return np.cumsum(borders[:-1])


def check_frames(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with the free frames."""
    return _check_blocks(state) + _check_areas(state) + _check_pcp(state)


def _blocks(state: "State") -> tuple[Ints, Ints]:
    heads = np.flatnonzero(state.page["page_flags"] & PageFlag.BUDDY)
    return heads, np.clip(state.page["order"][heads].astype(np.int64), 0, MAX_ORDER)


def _zones(state: "State", pfns: Ints) -> Ints:
    return np.searchsorted(state.zone["end_pfn"], pfns, side="right")


def _check_blocks(state: "State") -> list[str]:
    heads, orders = _blocks(state)
    said = state.page["order"]
    wrong = each(
        heads[(said[heads] < 0) | (said[heads] > MAX_ORDER)],
        lambda pfn: f"block {pfn}: has order {said[pfn]}",
    )
    sizes = 1 << orders
    wrong += each(
        heads[heads % sizes != 0], lambda pfn: f"block {pfn}: is not aligned to its order {said[pfn]}"
    )
    outside = _zones(state, heads) != _zones(state, heads + sizes - 1)
    wrong += each(heads[outside], lambda pfn: f"block {pfn}: of order {said[pfn]} is not within one zone")
    wrong += each(
        np.flatnonzero(free_block_cover(state) > 1), lambda pfn: f"frame {pfn}: is in two free blocks"
    )
    order_at = np.full(len(state.page), -1, np.int64)
    order_at[heads] = orders
    buddies = heads ^ sizes
    mergeable = (orders < MAX_ORDER) & (buddies < len(order_at)) & (heads < buddies)
    mergeable[mergeable] &= order_at[buddies[mergeable]] == orders[mergeable]
    mergeable &= _zones(state, heads) == _zones(state, buddies)
    wrong += each(
        heads[mergeable], lambda pfn: f"block {pfn}: its buddy of order {said[pfn]} is free, yet they are two"
    )
    in_use = state.page["refcount"][heads] != 0
    wrong += each(
        heads[in_use], lambda pfn: f"block {pfn}: is free with {state.page[pfn].refcount} references"
    )
    return wrong


def _check_areas(state: "State") -> list[str]:
    heads, orders = _blocks(state)
    zones = _zones(state, heads)
    following = state.page["next"].tolist()
    previous = state.page["prev"].tolist()
    wrong: list[str] = []
    for zone in range(NR_ZONES):
        for order in range(NR_ORDERS):
            name = f"free_area {ZoneId(zone).name} order {order}"
            area = state.free_area[zone * NR_ORDERS + order]
            expected = set(heads[(zones == zone) & (orders == order)].tolist())
            wrong += differ(f"{name}.nr_free", area.nr_free, len(expected), "blocks flagged so")
            if area.nr_free == 0:
                continue
            members, broken = linked_list(name, (area.first, area.last), following, previous)
            wrong += broken
            if not broken and set(members) != expected:
                stray = sorted(set(members) ^ expected)[0]
                wrong.append(f"{name}: block {stray} is on the list or flagged so, not both")
        free = int((1 << orders[zones == zone]).sum())
        wrong += differ(
            f"zone {ZoneId(zone).name}.nr_free", state.zone[zone].nr_free, free, "frames in its free blocks"
        )
        wrong += _check_managed(state, zone)
    total = int(state.zone["nr_free"].sum())
    return wrong + differ(
        "NR_FREE_PAGES", state.vm_stat[VmStat.NR_FREE_PAGES], total, "free frames of all zones"
    )


def _check_managed(state: "State", index: int) -> list[str]:
    zone = state.zone[index]
    page_flags = state.page["page_flags"][zone.start_pfn : zone.end_pfn]
    counted = int((page_flags & PageFlag.RESERVED == 0).sum())
    return differ(f"zone {ZoneId(index).name}.managed", zone.managed, counted, "frames not reserved")


def _check_pcp(state: "State") -> list[str]:
    following = state.page["next"].tolist()
    previous = state.page["prev"].tolist()
    flagged = set(np.flatnonzero(state.page["page_flags"] & PageFlag.PCP).tolist())
    wrong: list[str] = []
    seen: set[int] = set()
    for index in range(len(state.pcp)):
        name = f"pcp list {index}"
        lists = state.pcp[index]
        if lists.count == 0:
            continue
        members, broken = linked_list(name, (lists.first, lists.last), following, previous)
        wrong += broken + differ(f"{name}.count", lists.count, len(members), "frames on it")
        zones = _zones(state, np.array(members, np.int64))
        wrong += each(
            np.array(members, np.int64)[zones != index % NR_ZONES],
            f"{name}: frame {{}} is of another zone".format,
        )
        seen |= set(members)
    wrong += each(
        sorted(seen ^ flagged), lambda pfn: f"frame {pfn}: is on a per-CPU list or flagged so, not both"
    )
    held = [pfn for pfn in sorted(flagged) if state.page[pfn].refcount != 0]
    return wrong + each(
        held, lambda pfn: f"frame {pfn}: is on a per-CPU list with {state.page[pfn].refcount} references"
    )
