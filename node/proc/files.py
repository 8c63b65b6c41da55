"""Which files of /proc there are, and what writes each.

A process's files are in /proc/PID, where PID is the number of its address space, from 1 on; a number is given again
once its process has ended, as Linux's are. A process of a program goes by its name too: /proc/A/maps.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from node.kalloc.slabinfo import slabinfo
from node.kalloc.vmallocinfo import vmallocinfo
from node.proc.areas import Names
from node.proc.buddyinfo import buddyinfo
from node.proc.kpageflags import kpagecount, kpageflags
from node.proc.maps import maps
from node.proc.meminfo import meminfo
from node.proc.pagemap import pagemap
from node.proc.pagetypeinfo import pagetypeinfo
from node.proc.smaps import smaps, smaps_rollup
from node.proc.status import statm, status
from node.proc.vmstat import vmstat
from node.proc.zoneinfo import zoneinfo
from node.vm.mappings import living_mms

if TYPE_CHECKING:
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
CHEAP_PROCESS_FILES: "Final[Mapping[str, Callable[[State, int, Names], str]]]" = {
    "maps": maps,
    "statm": statm,
    "status": status,
}
PROCESS_FILES: "Final[Mapping[str, Callable[[State, int, Names], str]]]" = {
    **CHEAP_PROCESS_FILES,
    "smaps": smaps,
    "smaps_rollup": smaps_rollup,
}
# Binary ones, a word of 64 bits each: of a frame, or of a page of a process.
FRAME_FILES: "Final[Mapping[str, Callable[[State, int, int], bytes]]]" = {
    "/proc/kpagecount": kpagecount,
    "/proc/kpageflags": kpageflags,
}
WORD_BYTES: Final = 8
MAX_SAMPLED_PROCESSES: Final = 64
# smaps looks at every mapped page: some 0.2 us each. Of more of them than a quarter of a GiB it is made on demand only.
MAX_SAMPLED_PAGES: Final = 1 << 16

_PROCESS_PATH: Final = re.compile(r"/proc/(?P<who>[^/]+)/(?P<file>[a-z_]+)")


def proc_text(state: "State", path: str, names: Names) -> str:
    """Return the text of a file of /proc as Linux prints it. Raises KeyError for one that is not there."""
    if path in PROC_FILES:
        return PROC_FILES[path](state)
    pid, file = _process_file(state, path, names)
    return PROCESS_FILES[file](state, pid, names)


def proc_bytes(state: "State", path: str, names: Names, at: tuple[int, int]) -> bytes:
    """Return (offset, length) ``at`` of a binary file of /proc, as pread does.

    Raises KeyError for a file that is not there, ValueError for an offset or a length that is no multiple of 8.
    """
    for number in at:
        if number < 0 or number % WORD_BYTES:
            raise ValueError(f"{path}: {number} is not a multiple of {WORD_BYTES}")
    first, nr_words = (number // WORD_BYTES for number in at)
    if path in FRAME_FILES:
        return FRAME_FILES[path](state, first, nr_words)
    pid, file = _process_file(state, path, names)
    if file != "pagemap":
        raise KeyError(path)
    return pagemap(state, pid, first, nr_words)


def proc_texts(state: "State", names: Names) -> dict[str, str]:
    """Return the text of every file by its path, as far as it costs little: docs/proc.md says which are left out."""
    texts = {path: write(state) for path, write in PROC_FILES.items()}
    pids = living_mms(state)[:MAX_SAMPLED_PROCESSES].tolist()
    mms = state.mm[pids]
    nr_mapped = sum(int(mms[kind].sum()) for kind in ("nr_anon", "nr_file", "nr_shmem", "nr_swap"))
    files = PROCESS_FILES if nr_mapped <= MAX_SAMPLED_PAGES else CHEAP_PROCESS_FILES
    for pid in pids:
        texts |= {f"/proc/{pid}/{file}": write(state, pid, names) for file, write in files.items()}
    return texts


def _process_file(state: "State", path: str, names: Names) -> tuple[int, str]:
    """Return whose file a path names, and which. Raises KeyError if the process, or the file, is not there."""
    found = _PROCESS_PATH.fullmatch(path)
    if found is None or found["file"] not in {*PROCESS_FILES, "pagemap"}:
        raise KeyError(path)
    who = found["who"]
    pid = int(who) if who.isdecimal() else names.processes.get(who, 0)
    if pid not in living_mms(state):
        raise KeyError(path)
    return pid, found["file"]
