"""NUMA nodes: how far they are from one another, and in which order each tries the others.

    distances   10 21 21      node 0 tries itself, then 1, then 2; node 1 itself, then 2, then 0:
                21 10 21      of nodes equally far away, each begins with another, so that no node
                21 21 10      takes the overflow of all

Plain data, which knows no State: scenarios are checked with it.

Linux: mm/page_alloc.c (find_next_best_node, build_zonelists), include/linux/topology.h.
"""

from collections.abc import Sequence
from typing import Final

MAX_NODES: Final = 64
MAX_NUMNODES: Final = 1 << 10  # CONFIG_NODES_SHIFT of Debian's kernel
LOCAL_DISTANCE: Final = 10  # include/linux/topology.h
REMOTE_DISTANCE: Final = 20
MAX_DISTANCE: Final = 255  # the ACPI SLIT's, which means "cannot be reached"

Distances = Sequence[Sequence[int]]


def default_distances(nr_nodes: int) -> list[list[int]]:
    """Return what firmware without a table of distances says: 10 to itself, 20 to any other."""
    return [
        [LOCAL_DISTANCE if one == other else REMOTE_DISTANCE for other in range(nr_nodes)]
        for one in range(nr_nodes)
    ]


def check_distances(nr_nodes: int, distances: Distances) -> None:
    """Raise ValueError, in one line, if that is no table of distances of so many nodes."""
    if len(distances) != nr_nodes or any(len(row) != nr_nodes for row in distances):
        raise ValueError(f"numa.distances: is not {nr_nodes} rows of {nr_nodes}")
    for one, row in enumerate(distances):
        for other, distance in enumerate(row):
            if one == other and distance != LOCAL_DISTANCE:
                raise ValueError(
                    f"numa.distances.{one}.{one}: {distance} is not {LOCAL_DISTANCE}, the distance to itself"
                )
            if one != other and not LOCAL_DISTANCE < distance < MAX_DISTANCE:
                raise ValueError(
                    f"numa.distances.{one}.{other}: {distance} is outside {LOCAL_DISTANCE + 1}..{MAX_DISTANCE - 1}"
                )


def node_orders(distances: Distances, with_cpus: Sequence[bool]) -> list[list[int]]:
    """Return, for each node, all nodes in the order in which its requests try them."""
    nr_nodes = len(distances)
    load = [0] * nr_nodes
    orders = []
    for local in range(nr_nodes):
        order = [local]
        previous = local
        while len(order) < nr_nodes:
            left = [node for node in range(nr_nodes) if node not in order]
            best = min(
                left,
                key=lambda node: (
                    (distances[local][node] + (node < local) + with_cpus[node]) * MAX_NUMNODES + load[node]
                ),
            )
            if distances[local][best] != distances[local][previous]:
                load[best] += 1
            order.append(best)
            previous = best
        orders.append(order)
    return orders
