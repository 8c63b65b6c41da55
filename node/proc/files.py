"""Which files of /proc there are, and what writes each."""

from typing import TYPE_CHECKING, Final

from node.kalloc.slabinfo import slabinfo
from node.kalloc.vmallocinfo import vmallocinfo
from node.proc.buddyinfo import buddyinfo
from node.proc.meminfo import meminfo
from node.proc.pagetypeinfo import pagetypeinfo
from node.proc.vmstat import vmstat
from node.proc.zoneinfo import zoneinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from node.state import State

PROC_FILES: "Final[Mapping[str, Callable[[State], str]]]" = {
    "/proc/buddyinfo": buddyinfo,
    "/proc/meminfo": meminfo,
    "/proc/pagetypeinfo": pagetypeinfo,
    "/proc/slabinfo": slabinfo,
    "/proc/vmallocinfo": vmallocinfo,
    "/proc/vmstat": vmstat,
    "/proc/zoneinfo": zoneinfo,
}


def proc_text(state: "State", path: str) -> str:
    """Return the text of a file of /proc as Linux prints it. Raises KeyError for one that is not modelled."""
    return PROC_FILES[path](state)


def proc_texts(state: "State") -> dict[str, str]:
    """Return the text of every file, by its path."""
    return {path: write(state) for path, write in PROC_FILES.items()}
