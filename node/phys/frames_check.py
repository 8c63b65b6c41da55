"""What must hold of free frames at any time: the buddy system's blocks, the per-CPU lists, and their counts.

Written apart from the kernels, with numpy over whole tables.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from node.counters import VmStat
from node.findings import Ints, differ, each, linked_list
from node.phys.buddy import MAX_ORDER, NR_ORDERS
from node.phys.migrate_type import NR_MIGRATE_TYPES, NR_PCP_TYPES, MigrateType
from node.phys.page import PageFlag
from node.phys.pcp import COSTLY_ORDER, NR_LOW_ORDER_LISTS, NR_PCP_LISTS
from node.phys.zone import NR_ZONES, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, ZoneId
from shared.constants import NIL

if TYPE_CHECKING:
    from node.state import State

NOWHERE: Final = -1


# The order of the blocks on each of a CPU's lists for one zone.
ORDER_OF_LIST: Final = tuple(order for order in range(COSTLY_ORDER + 1) for _ in range(NR_PCP_TYPES)) + (
    PAGEBLOCK_ORDER,
) * (NR_PCP_LISTS - NR_LOW_ORDER_LISTS)


def free_block_cover(state: "State", flag: int) -> Ints:
    """Return, for each frame, how many blocks hold it whose first has ``flag``: PageFlag.BUDDY or PCP, or both."""
    heads, orders = _blocks(state, flag)
    nr_frames = len(state.page)
    borders = np.zeros(nr_frames + 1, np.int64)
    np.add.at(borders, heads, 1)
    np.add.at(borders, np.minimum(heads + (1 << orders), nr_frames), -1)
    return np.cumsum(borders[:-1])


def hole_frames(state: "State") -> npt.NDArray[np.bool_]:
    """Return which frame numbers stand for no memory."""
    zones = np.repeat(np.asarray(state.pageblock["zone"]), PAGEBLOCK_PAGES)[: len(state.page)]
    ends = np.asarray(state.zone["end_pfn"])[np.maximum(zones, 0)]
    return np.asarray((zones == NIL) | (np.arange(len(zones)) >= ends))


def check_frames(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with the free frames."""
    return _check_blocks(state) + _check_lists(state) + _check_zones(state) + _check_pcp(state)


def zone_name(state: "State", index: int) -> str:
    """Return what a zone is called: its kind, and its node if there are several."""
    name = ZoneId(index % NR_ZONES).name
    return name if len(state.zone) == NR_ZONES else f"{name} of node {index // NR_ZONES}"


def _blocks(state: "State", flag: int = PageFlag.BUDDY) -> tuple[Ints, Ints]:
    heads = np.flatnonzero(state.page["page_flags"] & flag)
    return heads, np.clip(state.page["order"][heads].astype(np.int64), 0, MAX_ORDER)


def _zones(state: "State", pfns: Ints) -> Ints:
    zones: Ints = np.asarray(state.pageblock["zone"])[
        np.minimum(pfns, len(state.page) - 1) >> PAGEBLOCK_ORDER
    ]
    return np.asarray(np.where(pfns < len(state.page), zones, NOWHERE))


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
        np.flatnonzero(free_block_cover(state, PageFlag.BUDDY | PageFlag.PCP) > 1),
        lambda pfn: f"frame {pfn}: is in two free blocks",
    )
    order_at = np.full(len(state.page), -1, np.int64)
    order_at[heads] = orders
    buddies = heads ^ sizes
    # Whole pageblocks may stay apart: where one of them was reserved or isolated when the other was freed.
    mergeable = (orders < PAGEBLOCK_ORDER) & (buddies < len(order_at)) & (heads < buddies)
    mergeable[mergeable] &= order_at[buddies[mergeable]] == orders[mergeable]
    mergeable &= _zones(state, heads) == _zones(state, buddies)
    wrong += each(
        heads[mergeable], lambda pfn: f"block {pfn}: its buddy of order {said[pfn]} is free, yet they are two"
    )
    in_use = state.page["refcount"][heads] != 0
    return wrong + each(
        heads[in_use], lambda pfn: f"block {pfn}: is free with {state.page[pfn].refcount} references"
    )


def _check_lists(state: "State") -> list[str]:
    heads, orders = _blocks(state)
    zones = _zones(state, heads)
    types = state.page["migrate_type"][heads]
    following = state.page["next"].tolist()
    previous = state.page["prev"].tolist()
    keys = (zones * NR_ORDERS + orders) * NR_MIGRATE_TYPES + types
    by_list = {int(key): set(heads[keys == key].tolist()) for key in np.unique(keys)}
    wrong: list[str] = []
    for zone in range(len(state.zone)):
        for order in range(NR_ORDERS):
            nr_blocks = int(((zones == zone) & (orders == order)).sum())
            area = state.free_area[zone * NR_ORDERS + order]
            name = f"free_area {zone_name(state, zone)} order {order}"
            wrong += differ(f"{name}.nr_free", area.nr_free, nr_blocks, "blocks flagged so")
            for kind in MigrateType:
                index = (zone * NR_ORDERS + order) * NR_MIGRATE_TYPES + kind
                ends = state.free_list[index]
                members, broken = linked_list(
                    f"{name} {kind.name}", (ends.first, ends.last), following, previous
                )
                wrong += broken
                expected = by_list.get(index, set())
                if not broken and set(members) != expected:
                    stray = sorted(set(members) ^ expected)[0]
                    wrong.append(f"{name} {kind.name}: block {stray} is on the list or flagged so, not both")
    return wrong


def _check_zones(state: "State") -> list[str]:
    heads, orders = _blocks(state)
    zones = _zones(state, heads)
    isolated = state.page["migrate_type"][heads] == MigrateType.ISOLATE
    reserved = np.asarray(state.page["page_flags"]) & PageFlag.RESERVED != 0
    nr_frames = len(state.page)
    zone_of_frame = np.repeat(np.asarray(state.pageblock["zone"]), PAGEBLOCK_PAGES)[:nr_frames]
    wrong: list[str] = []
    for index in range(len(state.zone)):
        zone = state.zone[index]
        name = f"zone {zone_name(state, index)}"
        free = int((1 << orders[(zones == index) & ~isolated]).sum())
        wrong += differ(f"{name}.nr_free", zone.nr_free, free, "frames in its free blocks")
        of_zone = (zone_of_frame == index) & ~reserved
        counted = int(of_zone[: zone.end_pfn].sum())
        wrong += differ(f"{name}.managed", zone.managed, counted, "frames not reserved")
        reserve = int(
            (
                (np.asarray(state.pageblock["zone"]) == index)
                & (np.asarray(state.pageblock["migrate_type"]) == MigrateType.HIGHATOMIC)
            ).sum()
        )
        wrong += differ(
            f"{name}.nr_reserved_highatomic",
            zone.nr_reserved_highatomic,
            reserve * PAGEBLOCK_PAGES,
            "frames of its reserved pageblocks",
        )
    total = int(state.zone["nr_free"].sum())
    return wrong + differ(
        "NR_FREE_PAGES", state.vm_stat[VmStat.NR_FREE_PAGES], total, "free frames of all zones"
    )


def _check_pcp(state: "State") -> list[str]:
    following = state.page["next"].tolist()
    previous = state.page["prev"].tolist()
    flagged = set(np.flatnonzero(state.page["page_flags"] & PageFlag.PCP).tolist())
    wrong: list[str] = []
    seen: set[int] = set()
    for index in range(len(state.pcp)):
        count = 0
        for which in range(NR_PCP_LISTS):
            ends = state.pcp_list[index * NR_PCP_LISTS + which]
            if ends.first < 0 and ends.last < 0:
                continue
            name = f"pcp list {index}.{which}"
            members, broken = linked_list(name, (ends.first, ends.last), following, previous)
            wrong += broken + _check_members(state, name, (index, which), np.array(members, np.int64))
            count += len(members) << ORDER_OF_LIST[which]
            seen |= set(members)
        wrong += differ(f"pcp list {index}.count", state.pcp[index].count, count, "frames on it")
    wrong += each(
        sorted(seen ^ flagged), lambda pfn: f"frame {pfn}: is on a per-CPU list or flagged so, not both"
    )
    held = [pfn for pfn in sorted(flagged) if state.page[pfn].refcount != 0]
    return wrong + each(
        held, lambda pfn: f"frame {pfn}: is on a per-CPU list with {state.page[pfn].refcount} references"
    )


def _check_members(state: "State", name: str, place: tuple[int, int], pfns: Ints) -> list[str]:
    """Check that blocks are on the per-CPU list (index in state.pcp, list) that zone, order and type say."""
    index, which = place
    wrong = each(
        pfns[_zones(state, pfns) != index % len(state.zone)],
        f"{name}: frame {{}} is of another zone".format,
    )
    orders = state.page["order"][pfns]
    wrong += each(pfns[orders != ORDER_OF_LIST[which]], f"{name}: frame {{}} is of another order".format)
    if which < NR_LOW_ORDER_LISTS:
        types = np.minimum(state.page["migrate_type"][pfns], NR_PCP_TYPES)
        types[types == NR_PCP_TYPES] = MigrateType.MOVABLE
        astray = types != which % NR_PCP_TYPES
        wrong += each(pfns[astray], f"{name}: frame {{}} is of another migrate type".format)
    return wrong
