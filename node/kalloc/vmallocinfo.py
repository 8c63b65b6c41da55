"""/proc/vmallocinfo: every area in use, and every one that waits to be flushed, as Linux prints them.

    0xffffc90000000000-0xffffc90000005000   20480 __do_sys_swapon+0x0/0x0 pages=4 vmalloc N0=4
    0xffffc90000008000-0xffffc9000000a000    8192 pci_iomap_range+0x0/0x0 phys=0x00000000fed00000 ioremap
    0xffffc9000000b000-0xffffc9000000e000   12288 unpurged vm_area

Addresses and bytes include the guard page. Areas that wait follow the last one in use, as there; with none in use
nothing is printed. N0 and so on say on which NUMA nodes an area's frames are, on 64-bit machines (32-bit kernels
are built without CONFIG_NUMA).

Linux: mm/vmalloc.c (s_show, show_numa_info, show_purge_info), lib/vsprintf.c (%pK, %pS, %pa).
# Differs from Linux: addresses are printed as to root with kptr_restrict 1, never hashed; a caller is the function's
name with offset and size zero, since there is no machine code.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.hw.paging import MIN_LEVELS_64
from node.hw.pte import PFN_MASK, Pte
from node.kalloc.vmap_area import VmapCaller, VmapFlag
from node.rbtree import Tree
from node.tree_nodes import NodePart, first_node
from shared.constants import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from node.state import State

CALLERS: Final = {
    VmapCaller.SWAPON: "__do_sys_swapon",
    VmapCaller.LOAD_MODULE: "load_module",
    VmapCaller.DRIVER: "pci_iomap_range",
}
_WORDS: Final = {VmapFlag.IOREMAP: "ioremap", VmapFlag.ALLOC: "vmalloc", VmapFlag.MAP: "vmap"}
_DIGITS_64: Final = 16
_DIGITS_32: Final = 8


def areas_in(state: "State", tree: Tree) -> list[int]:
    """Return the areas of a tree in order of address."""
    nodes: list[int] = []
    waiting: list[int] = []
    base = first_node(state, NodePart.VMAP_AREA)
    node = int(state.rb_root[tree])
    while node >= 0 or waiting:
        while node >= 0:
            waiting.append(node)
            node = state.rb_node[node].left
        node = waiting.pop()
        nodes.append(node - base)
        node = state.rb_node[node].right
    return nodes


def frames_of_area(state: "State", index: int) -> dict[int, int]:
    """Return which frame each mapped page of an area has in the master page table, by address."""
    area = state.vmap_area[index]
    found = {}
    last = int(state.knob[Knob.NR_LEVELS]) - 1
    for vaddr in range(area.start, area.end, PAGE_SIZE):
        table = int(state.knob[Knob.SWAPPER_PGD])
        for level in range(last + 1):
            here = state.paging_level[level]
            position = vaddr >> here.shift & here.index_mask
            word = int(state.pt_word[(table << int(state.knob[Knob.TABLE_SHIFT])) + position])
            if not word & Pte.PRESENT:
                break
            table = word >> PAGE_SHIFT & PFN_MASK
        else:
            found[vaddr] = table
    return found


def vmallocinfo(state: "State") -> str:
    """Return /proc/vmallocinfo."""
    lines = [_line(state, index) for index in areas_in(state, Tree.BUSY_VMAP)]
    if lines:
        lines += [_range(state, index) + " unpurged vm_area" for index in areas_in(state, Tree.LAZY_VMAP)]
    return "".join(f"{line}\n" for line in lines)


def _is_64bit(state: "State") -> bool:
    return bool(state.knob[Knob.NR_LEVELS] >= MIN_LEVELS_64)


def _hexadecimal(state: "State", number: int) -> str:
    digits = _DIGITS_64 if _is_64bit(state) else _DIGITS_32
    return f"0x{number % (1 << 4 * digits):0{digits}x}"


def _range(state: "State", index: int) -> str:
    area = state.vmap_area[index]
    addresses = f"{_hexadecimal(state, area.start)}-{_hexadecimal(state, area.end)}"
    return f"{addresses} {area.end - area.start:7d}"


def _line(state: "State", index: int) -> str:
    area = state.vmap_area[index]
    words = [_range(state, index)]
    if area.caller in CALLERS:
        words.append(f"{CALLERS[VmapCaller(area.caller)]}+0x0/0x0")
    if area.nr_pages:
        words.append(f"pages={area.nr_pages}")
    if area.paddr:
        words.append(f"phys={_hexadecimal(state, area.paddr)}")
    words += [word for flag, word in _WORDS.items() if area.vmap_flags & flag]
    if area.nr_pages and _is_64bit(state):
        words += _nodes(state, index)
    return " ".join(words)


def _nodes(state: "State", index: int) -> list[str]:
    """Return how many of an area's frames each NUMA node has."""
    frames = np.array(list(frames_of_area(state, index).values()), np.int64)
    counts: dict[int, int] = {}
    for number in range(len(state.zone)):
        zone = state.zone[number]
        inside = int(((frames >= zone.start_pfn) & (frames < zone.end_pfn)).sum())
        counts[zone.nid] = counts.get(zone.nid, 0) + inside
    return [f"N{nid}={counts[nid]}" for nid in sorted(counts) if counts[nid]]
