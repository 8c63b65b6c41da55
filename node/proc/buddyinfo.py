"""/proc/buddyinfo: how many free blocks of each order a zone has, all migrate types together.

    Node 0, zone    DMA32      3      1      2      2      9      5      3      4      7      4     97
                       order:  0      1      2      3      4      5      6      7      8      9     10

A zone without frames has no line, and every line ends with a space, as Linux prints it.

Linux: mm/vmstat.c (frag_show, frag_show_print).
"""

from typing import TYPE_CHECKING

from node.proc.zones import ZoneView, populated_zones

if TYPE_CHECKING:
    from node.state import State


def buddyinfo(state: "State") -> str:
    """Return the text of /proc/buddyinfo."""
    return "".join(buddy_line(zone) for zone in populated_zones(state))


def buddy_line(zone: ZoneView) -> str:
    """Return one zone's line."""
    blocks = "".join(f"{count:6d} " for count in zone.free_blocks)
    return f"Node {zone.node}, zone {zone.name:>8} {blocks}\n"
