"""Whether a machine has room for what a program has it populate or lock.

Memory that is merely mapped costs nothing until it is touched, and what touches too much is for the OOM killer. But
pages that one command populates have to be in memory or swap at once, and locked ones in memory: with less than that,
the machine is too small for the program, whatever else happens on it.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.program.text import Command
from node.vm.commit import SWAP_HEADER_PAGES
from shared.constants import PAGE_SIZE
from shared.units import format_size

if TYPE_CHECKING:
    from node.state import State


def check_room(state: "State", command: Command) -> None:
    """Raise ``ProgramError``, in one line, for a mapping that the machine cannot hold."""
    flags = {"populate", "locked"} & {*command.words[2:]}
    if command.verb != "mmap" or not flags:
        return
    size = command.parse(command.words[1])
    memory = int(np.asarray(state.zone)["managed"].sum()) * PAGE_SIZE
    swap = max(int(state.swap_area[0].nr_slots) - SWAP_HEADER_PAGES, 0) * PAGE_SIZE
    if size > memory + (0 if "locked" in flags else swap):
        raise command.fail(
            f"mmap {command.words[1]} {' '.join(sorted(flags))}: the machine is too small for it:"
            f" {format_size(memory)} of memory, {format_size(swap)} of swap"
        )
