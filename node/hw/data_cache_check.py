"""What must hold of the data caches at any time: one value for each line of memory, wherever it is cached.

every line stands in the set that its address chooses, once; it is modified if and only if it counts writes;
copies of a physical line in one cache are equal; a line that is modified in one cache is in no other
"""

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob
from node.findings import each
from node.hw.cache_lines import CacheMode, LineState
from shared.constants import PAGE_SHIFT

if TYPE_CHECKING:
    from node.state import State


def check_data_cache(state: "State") -> list[str]:
    """Return one line for each contradiction found in the data caches; none if all is well, or if they are off."""
    if state.knob[Knob.DCACHE_MODE] == CacheMode.OFF:
        return []
    wrong = _lines(state) + _sets(state)
    return wrong or _copies(state)


def _in_use(state: "State") -> list[int]:
    return [int(index) for index in np.flatnonzero(np.asarray(state.cache_line)["stamp"])]


def _lines(state: "State") -> list[str]:
    """Check each line by itself."""
    line = np.asarray(state.cache_line)
    places = np.arange(len(line))
    in_use = line["stamp"] != 0
    ways, sets = state.knob[Knob.DCACHE_WAYS], state.knob[Knob.DCACHE_SETS]
    line_in_page = (1 << (PAGE_SHIFT - state.knob[Knob.DCACHE_LINE_SHIFT])) - 1
    frames = line["physical"] >> (PAGE_SHIFT - state.knob[Knob.DCACHE_LINE_SHIFT])
    is_physical = state.knob[Knob.DCACHE_MODE] != CacheMode.VIRTUAL
    modified = line["line_state"] == LineState.MODIFIED
    findings = {
        "is used and invalid, or the reverse": in_use != (line["line_state"] != LineState.INVALID),
        "is modified without a write, or the reverse": in_use & (modified != (line["nr_writes"] > 0)),
        "stands in a set that its address does not choose": in_use
        & (line["tag"] % sets != places // ways % sets),
        "is of a frame that does not exist": in_use & ((frames < 0) | (frames >= state.knob[Knob.NR_FRAMES])),
        "has another place in its page than its frame's line": in_use
        & (line["tag"] & line_in_page != line["physical"] & line_in_page),
        "has a tag that is not its physical address": in_use
        & is_physical
        & (line["tag"] != line["physical"]),
    }
    wrong = []
    for what, is_wrong in findings.items():
        wrong += each(np.flatnonzero(is_wrong), partial(_finding, what))
    return wrong


def _finding(what: str, index: int) -> str:
    return f"cache_line[{index}]: {what}"


def _sets(state: "State") -> list[str]:
    """Check that a set has no line, and no rank of use, twice."""
    ways = state.knob[Knob.DCACHE_WAYS]
    seen: dict[tuple[object, ...], int] = {}
    wrong = []
    for index in _in_use(state):
        line = state.cache_line[index]
        number = index // ways
        for what in (("line", line.tag, line.pcid), ("rank", line.stamp)):
            key = (number, *what)
            if key in seen:
                wrong.append(
                    f"cache_line[{index}]: has the {what[0]} of cache_line[{seen[key]}] in the same set"
                )
            seen[key] = index
    return wrong


def _copies(state: "State") -> list[str]:
    """Compare all copies of each physical line."""
    lines_of_cpu = state.knob[Knob.DCACHE_SETS] * state.knob[Knob.DCACHE_WAYS]
    copies: defaultdict[int, list[int]] = defaultdict(list)
    for index in _in_use(state):
        copies[state.cache_line[index].physical].append(index)
    wrong = []
    for physical, indices in copies.items():
        first = state.cache_line[indices[0]]
        for index in indices[1:]:
            line = state.cache_line[index]
            if (line.line_state, line.nr_writes) == (first.line_state, first.nr_writes):
                is_elsewhere = index // lines_of_cpu != indices[0] // lines_of_cpu
                if not (is_elsewhere and line.line_state == LineState.MODIFIED):
                    continue
            wrong.append(
                f"cache_line[{index}]: physical line {physical:#x} in state {line.line_state} after"
                f" {line.nr_writes} writes, in cache_line[{indices[0]}] {first.line_state} after {first.nr_writes}"
            )
    return wrong
