"""A full machine as a guest: what happens at the borders of its epochs. node/hw/ept_view.py has the rest.

Linux: none of it; this is the part of the virtual machine monitor that the guest does not see.
"""

from typing import TYPE_CHECKING

from node.counters import Current
from node.hw.tlb_drop import flush_lowered_view
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State


@entry
def take_lowered_view(state: "State") -> int:
    """Drop translations that grant more than ``ept_view``, just written, does; return how many."""
    return flush_lowered_view(state)


@entry
def end_guest_epoch(state: "State") -> int:
    """Forget what this epoch logged and marked; return the number of frames that had a mark."""
    nr_marked = state.current[Current.NR_MARKED]
    for i in range(nr_marked):
        state.ept_mark[state.ept_marked[i]] = 0
    state.current[Current.NR_MARKED] = 0
    state.current[Current.NR_VIOLATIONS] = 0
    return nr_marked
