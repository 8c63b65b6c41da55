"""The four kinds of frames: beside a model that looks at each frame by itself."""

from collections import Counter

import pytest

from node.frame_kinds import PREFIX, FrameKind, FrameUse, frame_kinds
from node.machine import Machine
from node.phys.page import PageFlag
from node.proc.zones import populated_zones
from node.spec import MachineSpec
from node.state import State
from shared.constants import MIB, PAGE_SIZE
from tests.node.proc.process_machine import ProcessMachine
from tests.node.vm_machine import READ_WRITE, VmMachine

PROGRAM = "spawn A\nA: mmap h 3M\nA: write h\nA: fork C\nC: write h len=1M\nA: exit\nsnapshot written\n"


def by_use(state: State) -> Counter[str]:
    """Return how many frames are of each use, looking at flags one frame after the other."""
    free: set[int] = set()
    for pfn in range(len(state.page)):
        if state.page[pfn].page_flags & PageFlag.BUDDY:
            free |= set(range(pfn, pfn + (1 << state.page[pfn].order)))
    found: Counter[str] = Counter()
    for zone in populated_zones(state):
        for pfn in range(zone.start_pfn, zone.end_pfn):
            page = state.page[pfn]
            flags = page.page_flags
            if pfn in free or flags & PageFlag.PCP:
                found["free"] += 1
            elif flags & (PageFlag.RESERVED | PageFlag.ZERO_PAGE):
                found["reserved"] += 1
            elif flags & (PageFlag.DMA | PageFlag.ISOLATED):
                found["locked"] += 1
            elif flags & PageFlag.MLOCKED:
                found["mlocked"] += 1
            elif flags & PageFlag.ANON:
                found["anon"] += 1
            elif flags & PageFlag.CACHED:
                of_file = "mapped_file" if page.mapcount else "page_cache"
                found["tmpfs" if flags & PageFlag.SWAPBACKED else of_file] += 1
            else:
                found["kernel"] += 1
    return found


def uses(state: State) -> dict[str, int]:
    counts = frame_kinds(state)
    return {use.name.lower(): counts[f"{PREFIX}use.{use.name.lower()}"] for use in FrameUse}


def busy_machine() -> VmMachine:
    machine = ProcessMachine()
    mm = machine.spawn()
    own = machine.map(mm, 8)
    shared = machine.map_shared(mm, 4)
    inode = machine.file(4)
    of_file = machine.map_shared(mm, 4, inode)
    for page in range(4):
        for start in (own, shared, of_file):
            machine.write(mm, start + page * PAGE_SIZE, 1)
    machine.unmap(mm, of_file, 2)
    child = machine.fork(mm)
    machine.write(child, own, 2)
    machine.read(child, shared)
    locked = machine.write(mm, own + 3 * PAGE_SIZE, 3)
    machine.state.page[locked].page_flags |= PageFlag.MLOCKED
    held = machine.write(mm, machine.map(mm, 1, READ_WRITE), 3)
    machine.state.page[held].page_flags |= PageFlag.ISOLATED
    return machine


def test_every_frame_is_of_the_use_that_its_flags_say() -> None:
    state = busy_machine().state
    expected = by_use(state)
    assert {use: count for use, count in uses(state).items() if count} == expected
    assert expected["tmpfs"] == 4
    assert (expected["mapped_file"], expected["page_cache"]) == (2, 2)
    assert (expected["mlocked"], expected["locked"]) == (1, 1)


@pytest.mark.parametrize("memory_mib", [64, 300])
def test_kinds_of_all_frames_add_up_to_the_zones(memory_mib: int) -> None:
    machine = Machine(MachineSpec(memory_bytes=memory_mib * MIB))
    machine.run_program(PROGRAM)
    counts = machine.counters()
    of_kinds = sum(counts[f"{PREFIX}{kind.name.lower()}"] for kind in FrameKind)
    assert of_kinds == sum(zone.spanned for zone in populated_zones(machine.state))
    assert uses(machine.state) == {use.name.lower(): 0 for use in FrameUse} | by_use(machine.state)
    assert counts["frames.swappable"] == counts["nr_anon_pages"] == 768


def test_kinds_are_crossed_with_whose_pages_they_are_and_how_they_are_mapped() -> None:
    counts = frame_kinds(busy_machine().state)
    crossed = {
        name.removeprefix(PREFIX): count for name, count in counts.items() if name.count(".") == 3 and count
    }
    # Of the process's own four pages two were copied, two are the child's too; the child's one read of shared memory
    # mapped all that is cached around it.
    assert crossed == {
        "unreclaimable.anonymous.mapped": 2,
        "swappable.anonymous.mapped": 3,
        "swappable.anonymous.shared": 2,
        "swappable.file.shared": 4,
        "syncable.file.mapped": 2,
        "syncable.file.unmapped": 2,
    }


def test_a_slab_without_objects_is_discardable_and_one_with_objects_is_not() -> None:
    state = Machine(MachineSpec(memory_bytes=64 * MIB)).state
    before = uses(state)
    slab = 5000
    state.page[slab].page_flags = PageFlag.SLAB
    state.page[slab].word = slab
    state.page[slab].private = 8 << 15  # eight objects, none in use
    assert frame_kinds(state)["frames.discardable"] == before["unused_slab"] + 1
    state.page[slab].private |= 1
    assert frame_kinds(state)["frames.discardable"] == before["unused_slab"]
