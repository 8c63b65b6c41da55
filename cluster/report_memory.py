"""The picture of physical memory in a report: one square a cell, zone under zone, at each sampled time.

    |<------ a slider over the sampled times ------>|
    Node 0, zone DMA    0 B to 16 MiB
    [][][][][][][][]
    Node 0, zone DMA32  16 MiB to 512 MiB
    [][][][][][][][] ...                          colour: what most frames of the square are for;
                                                  a free one is the paler, the larger its block

The page holds the first picture whole and of the others what changed, as runs of equal bytes, since most of a
memory stays as it is from one sample to the next. ``report_memory.js`` draws; the table beside it has the
numbers. Hosts and plain machines with charts get one; a guest's memory is drawn as its host's processes, and its
own picture is in memory.parquet.
"""

from base64 import b64encode
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.report_chart import MAX_POINTS, Table
from cluster.report_data import RunData
from cluster.report_numbers import as_percent, as_size, as_time
from cluster.report_page import Page, heading, table, text
from shared.constants import KIB, PAGE_SIZE
from shared.look import MemoryPicture, PicturedZone, Use

Codes = npt.NDArray[np.uint8]  # [cell] use in the low bits, order of a free one in the high bits

USE_BITS: Final = 4
LARGEST_ORDER: Final = 10
MAX_RUN: Final = 256  # a run's length less one is a byte
# Each use's colour, a variable of report.css, and its words.
USES: Final = {
    Use.HOLE: ("--ground", "no memory"),
    Use.RESERVED: ("--reserved", "reserved"),
    Use.FREE: ("--free", f"free, in a block of order {LARGEST_ORDER}"),
    Use.PER_CPU: ("--per-cpu", "free, on a CPU's list"),
    Use.USER: ("--unique", "processes, page cache"),
    Use.PAGE_TABLE: ("--saved-other", "page tables"),
    Use.SLAB: ("--merged", "slab"),
    Use.VMALLOC: ("--saved-zero", "vmalloc"),
    Use.KERNEL: ("--kernel", "kernel"),
    Use.DEVICE: ("--swapped", "devices"),
    Use.MOVABLE: ("--movable", "other, movable"),
    Use.UNMOVABLE: ("--unmovable", "other, unmovable"),
    Use.RECLAIMABLE: ("--reclaimable", "other, reclaimable"),
}
FREE_SMALL: Final = ("--free-small", "free, in a block of order 0")


def add_memory_picture(page: Page, run: RunData, machine: str) -> None:
    """Add the picture of a machine's memory to a report; nothing if the run kept none."""
    pictures = run.pictures(machine)
    if not pictures:
        return
    times = _thinned(sorted(pictures))
    last = pictures[times[-1]]
    codes = [_codes(pictures[time_ns]) for time_ns in times]
    present = sorted({Use(int(code)) for each in codes for code in np.unique(each & ((1 << USE_BITS) - 1))})
    data = {
        "times": [as_time(time_ns) for time_ns in times],
        "cells": encode_changes(codes),
        "cellFrames": 1 << last.cell_order,
        "zones": [_zone_data(zone, last.cell_order) for zone in last.zones],
        "uses": [USES[use] for use in Use],
        "freeSmall": FREE_SMALL[0],
        "largestOrder": LARGEST_ORDER,
    }
    left_out = len(pictures) - len(times)
    page.add(heading(f"Physical memory of {machine}"))
    page.add_picture(lambda name: _html(name, machine, last, (times, left_out), present), data)


def encode_changes(codes: Sequence[Codes]) -> list[str]:
    """Return each picture as base64 of (length - 1, byte) runs of what differs (xor) from the one before."""
    packed = []
    before = np.zeros(len(codes[0]), np.uint8)
    for now in codes:
        packed.append(b64encode(_runs(now ^ before)).decode("ascii"))
        before = now
    return packed


def _runs(values: Codes) -> bytes:
    out = bytearray()
    for value, group in groupby(values.tolist()):
        left = sum(1 for _ in group)
        while left:
            length = min(left, MAX_RUN)
            out += bytes((length - 1, value))
            left -= length
    return bytes(out)


def _codes(picture: MemoryPicture) -> Codes:
    uses = np.frombuffer(picture.uses, np.uint8)
    orders = np.frombuffer(picture.orders, np.uint8)
    codes: Codes = np.bitwise_or(uses, orders << USE_BITS, dtype=np.uint8)
    return codes


def _thinned(times: list[int]) -> list[int]:
    if len(times) <= MAX_POINTS:
        return times
    kept = np.unique(np.linspace(0, len(times) - 1, MAX_POINTS).astype(np.int64))
    return [times[index] for index in kept.tolist()]


def _zone_data(zone: PicturedZone, cell_order: int) -> dict[str, Any]:
    return {"first": zone.start_pfn, "end": zone.end_pfn, "cells": zone.nr_cells(cell_order)}


def _html(
    name: str, machine: str, last: MemoryPicture, sampled: tuple[list[int], int], present: list[Use]
) -> str:
    times, left_out = sampled
    square = as_size(1 << last.cell_order) if last.cell_order else f"{PAGE_SIZE // KIB} KiB"
    words = (
        f"A square is {square} of memory; its colour is what most of it is for. A free square is the paler,"
        " the larger the free block that it lies in: sky-blue ones are fragments."
    )
    if left_out:
        words += f" {len(times)} of the {len(times) + left_out} sampled times, evenly spread."
    zones = "".join(_zone_html(zone, machine) for zone in last.zones)
    slider = (
        f'<p class="moment"><label for="{name}-time">Time</label>'
        f'<input type="range" id="{name}-time" min="0" max="{len(times) - 1}" value="{len(times) - 1}"'
        f' step="1" aria-valuetext="{text(as_time(times[-1]))}">'
        f'<output for="{name}-time">{text(as_time(times[-1]))}</output></p>'
    )
    numbers = table(_numbers(last, present), label=f"Numbers of the picture of {machine}")
    return (
        f'<figure class="panel picture" id="{name}"><figcaption><p>{text(words)}</p>{_legend(present)}'
        f"</figcaption>{slider}{zones}"
        '<p class="soft pointed" aria-live="polite">Point at a square to read what it is.</p>'
        f"<details><summary>Numbers at {text(as_time(times[-1]))}</summary>{numbers}</details></figure>"
    )


def _zone_html(zone: PicturedZone, machine: str) -> str:
    title = f"Node {zone.node}, zone {zone.name}"
    span = f"{as_size(zone.start_pfn)} to {as_size(zone.end_pfn)}"
    label = f"Physical memory of {machine}: {title}, {span}, by use"
    return (
        f'<h4>{text(title)} <span class="soft">{text(span)}</span></h4>'
        f'<canvas role="img" aria-label="{text(label)}"></canvas>'
    )


def _legend(present: list[Use]) -> str:
    entries = []
    for use in present:
        entries.append(USES[use])
        if use is Use.FREE:
            entries.append(FREE_SMALL)
    items = "".join(
        f'<li><i class="fill" style="--swatch:var({colour})"></i>{text(words)}</li>'
        for colour, words in entries
    )
    return f'<ul class="legend" aria-label="Colours of the picture">{items}</ul>'


def _numbers(picture: MemoryPicture, present: list[Use]) -> Table:
    uses = np.frombuffer(picture.uses, np.uint8)
    rows = []
    for use in present:
        share = np.count_nonzero(uses == use) / max(len(uses), 1)
        words = "free" if use is Use.FREE else USES[use][1]
        rows.append([words, f"{np.count_nonzero(uses == use):,}", as_percent(share)])
    return Table(["use", "squares", "share"], rows)
