"""Zonelists: where a request looks for frames, in which order.

    node 0, highest zone MOVABLE:   node 0: MOVABLE NORMAL DMA32 DMA   node 1: MOVABLE NORMAL   none

Nearest node first (node/phys/numa.py), and on each node from the highest zone that the request allows downwards.
DEVICE is on no list.

``state.zonelist`` has a list for each node and highest kind of zone, each as long as there are zones and one more,
ended by NIL; the first of it is the preferred zone.

Linux: mm/page_alloc.c (build_all_zonelists, build_zonelists_in_node_order).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.phys.gfp import gfp_zone
from node.phys.numa import Distances, node_orders
from node.phys.zone import NR_ZONES, ZoneId
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def zonelist_of(state: "State", gfp: int) -> int:
    """Return where in ``state.zonelist`` the list of the current CPU and the request's highest zone begins."""
    nid = state.cpu[state.current[Current.CPU]].nid
    return (nid * NR_ZONES + gfp_zone(gfp)) * (len(state.zone) + 1)


def setup_zonelists(state: "State", distances: Distances, with_cpus: Sequence[bool]) -> None:
    """Write all zonelists, of the zones that have frames to give."""
    stride = len(state.zone) + 1
    state.zonelist[:] = NIL
    for nid, order in enumerate(node_orders(distances, with_cpus)):
        for highest in range(NR_ZONES):
            at = (nid * NR_ZONES + highest) * stride
            top = min(highest, ZoneId.MOVABLE)
            if top == ZoneId.DMA32 and not state.knob[Knob.HAS_DMA32]:
                top = ZoneId.NORMAL  # a kernel without that zone takes its requests so (OPT_ZONE_DMA32)
            for node in order:
                for kind in range(top, -1, -1):
                    if state.zone[node * NR_ZONES + kind].managed:
                        state.zonelist[at] = node * NR_ZONES + kind
                        at += 1
