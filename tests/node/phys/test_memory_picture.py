"""The picture of memory, beside one that looks at each frame by itself."""

from collections import Counter

import pytest

from node.machine import Machine
from node.phys.memory_picture import MAX_CELLS, draw_memory
from node.phys.page import PageFlag
from node.proc.zones import populated_zones
from node.spec import MachineSpec
from node.state import State
from shared.constants import GIB, MIB
from shared.look import MemoryPicture, PicturedZone, Use

PROGRAM = "spawn A\nA: mmap h 3M\nA: write h\nspawn B\nB: mmap i 1M\nB: write i\nsnapshot written\n"


def picture_of(state: State) -> MemoryPicture:
    zones = [
        PicturedZone(zone.node, zone.name, zone.start_pfn, zone.end_pfn) for zone in populated_zones(state)
    ]
    return draw_memory(state, zones)


def free_orders(state: State) -> dict[int, int]:
    """Return the order of its block for each frame on a buddy list."""
    orders: dict[int, int] = {}
    for pfn in range(len(state.page)):
        page = state.page[pfn]
        if page.page_flags & PageFlag.BUDDY:
            orders |= dict.fromkeys(range(pfn, pfn + (1 << page.order)), page.order)
    return orders


def use_of(state: State, pfn: int, free: dict[int, int]) -> Use:
    """Return what a frame is for, as far as this machine's frames go."""
    flags = state.page[pfn].page_flags
    for flag, use in (
        (PageFlag.PCP, Use.PER_CPU),
        (PageFlag.PAGE_TABLE, Use.PAGE_TABLE),
        (PageFlag.ANON, Use.USER),
        (PageFlag.KERNEL, Use.KERNEL),
        (PageFlag.ZERO_PAGE, Use.KERNEL),
        (PageFlag.RESERVED, Use.RESERVED),
    ):
        if flags & flag:
            return use
    return Use.FREE if pfn in free else Use.MOVABLE


@pytest.mark.parametrize(("memory_mib", "cell_order"), [(64, 2), (128, 3)])
def test_a_cell_shows_what_most_of_its_frames_are(memory_mib: int, cell_order: int) -> None:
    machine = Machine(MachineSpec(memory_bytes=memory_mib * MIB))
    machine.run_program(PROGRAM)
    state = machine.state
    picture = picture_of(state)
    assert picture.cell_order == cell_order
    free = free_orders(state)
    cells = iter(zip(picture.uses, picture.orders, strict=True))
    for zone in picture.zones:
        for cell in range(zone.start_pfn >> cell_order, (zone.end_pfn - 1 >> cell_order) + 1):
            frames = range(
                max(cell << cell_order, zone.start_pfn), min((cell + 1) << cell_order, zone.end_pfn)
            )
            counts = Counter(use_of(state, pfn, free) for pfn in frames)
            use, order = next(cells)
            assert use == min(counts, key=lambda kind: (-counts[kind], kind)), cell
            largest = max(free.get(pfn, 0) for pfn in frames)
            assert order == (largest if use == Use.FREE else 0), cell
    assert next(cells, None) is None
    assert picture.uses.count(Use.USER) << cell_order >= 4 * MIB // 4096 // 2


def test_a_large_machine_has_no_more_cells() -> None:
    machine = Machine(MachineSpec(memory_bytes=2 * GIB))
    picture = picture_of(machine.state)
    assert len(picture.uses) <= MAX_CELLS + len(picture.zones)
    assert 10 in picture.orders
