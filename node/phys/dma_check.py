"""What must hold of memory for devices at any time: whose frames these are, and bounce slots counted again.

Written apart from the kernels, with numpy over whole tables.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.findings import Ints, differ, each
from node.phys.bounce import AREA_FRAMES, IO_TLB_SEGSIZE, NR_BOUNCE_POOLS, SLOTS_PER_PAGE, BouncePool
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State

NOWHERE_ELSE: Final = PageFlag.RESERVED | PageFlag.BUDDY | PageFlag.PCP | PageFlag.LRU | PageFlag.ANON


def check_dma(state: "State") -> list[str]:
    """Return one line for each thing that is wrong with what devices hold."""
    return _check_frames(state) + _check_mappings(state) + _check_slots(state)


def _check_frames(state: "State") -> list[str]:
    page_flags = state.page["page_flags"]
    held = np.flatnonzero(page_flags & PageFlag.DMA)
    wrong = each(
        held[page_flags[held] & NOWHERE_ELSE != 0],
        lambda pfn: f"frame {pfn}: is a device's, and elsewhere: flags {page_flags[pfn]:#x}",
    )
    areas = _areas(state)
    inside = (areas[:, None] + np.arange(AREA_FRAMES)).ravel()
    wrong += each(
        inside[page_flags[inside] & PageFlag.DMA == 0],
        lambda pfn: f"frame {pfn}: holds bounce buffers, but is no device's",
    )
    drivers = int(state.dma_device["nr_held"].sum())
    return wrong + differ(
        "frames held by drivers", drivers, len(held) - len(inside), "flagged beside the pools'"
    )


def _areas(state: "State") -> Ints:
    """Return the first frame of each area of the pools."""
    slots = int(state.bounce_pool["nr_slots"].sum())
    return np.asarray(state.bounce_area[: slots // IO_TLB_SEGSIZE]).astype(np.int64)


def _segments(state: "State") -> Ints:
    """Return the indices of all segments of live mappings."""
    rows = [
        np.arange(first, first + count)
        for first, count in zip(
            state.dma_mapping["first_segment"].tolist(),
            state.dma_mapping["nr_segments"].tolist(),
            strict=True,
        )
    ]
    return np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)


def _check_mappings(state: "State") -> list[str]:
    wrong = []
    for index in range(len(state.dma_mapping)):
        mapping = state.dma_mapping[index]
        rows = slice(mapping.first_segment, mapping.first_segment + mapping.nr_segments)
        frames = int(state.dma_segment["nr_frames"][rows].sum())
        wrong += differ(f"mapping {index}.nr_frames", mapping.nr_frames, frames, "frames of its segments")
        device = state.dma_device[mapping.dma_device]
        ends = state.dma_segment["bus_pfn"][rows].astype(np.int64) + state.dma_segment["nr_frames"][rows]
        out_of_reach = np.flatnonzero((ends << PAGE_SHIFT) - 1 > device.last_byte)
        wrong += each(
            out_of_reach + mapping.first_segment,
            lambda at: f"segment {at}: its device cannot reach frame {state.dma_segment[at].bus_pfn}",
        )
    return wrong


def _check_slots(state: "State") -> list[str]:
    nr_slots = int(state.bounce_pool["nr_slots"].sum())
    nr_holders = np.zeros(nr_slots, np.int64)
    for index in _segments(state).tolist():
        segment = state.dma_segment[index]
        if segment.slot != NIL:
            nr_holders[segment.slot : segment.slot + segment.nr_frames * SLOTS_PER_PAGE] += 1
    wrong = each(
        np.flatnonzero(nr_holders > 1), lambda slot: f"bounce slot {slot}: is in {nr_holders[slot]} segments"
    )
    said = state.bounce_slot["nr_free"][:nr_slots]
    free = _free_runs(nr_holders)
    wrong += each(
        np.flatnonzero(said != free),
        lambda slot: (
            f"bounce slot {slot}.nr_free: is {said[slot]}, but free ones from there on: {free[slot]}"
        ),
    )
    for which in range(NR_BOUNCE_POOLS):
        pool = state.bounce_pool[which]
        used = int((nr_holders[pool.first_slot : pool.first_slot + pool.nr_slots] > 0).sum())
        name = f"bounce pool {BouncePool(which).name}"
        wrong += differ(f"{name}.nr_used", pool.nr_used, used, "slots in segments")
        if not used <= pool.max_used <= pool.nr_slots:
            wrong.append(f"{name}.max_used: is {pool.max_used}, with {used} of {pool.nr_slots} in use")
    return wrong


def _free_runs(nr_holders: Ints) -> Ints:
    """Return how many free slots there are from each slot on, to the next that is held or the area's end."""
    slots = np.arange(len(nr_holders))
    ends = np.where((nr_holders > 0), slots, len(slots))
    next_held = np.minimum.accumulate(ends[::-1])[::-1]
    area_end = (slots // IO_TLB_SEGSIZE + 1) * IO_TLB_SEGSIZE
    return np.minimum(next_held, area_end) - slots
