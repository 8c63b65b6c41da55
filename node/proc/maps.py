"""/proc/PID/maps: the areas of a process, one a line, ascending (node/proc/areas.py says what is in a line)."""

from typing import TYPE_CHECKING

from node.proc.areas import Names, areas_of

if TYPE_CHECKING:
    from node.state import State


def maps(state: "State", mm_index: int, names: Names) -> str:
    """Return the text of /proc/PID/maps."""
    return "".join(area.line() for area in areas_of(state, mm_index, names))
