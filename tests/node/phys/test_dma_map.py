"""The kernel's DMA interface: coherent blocks within reach, lists of frames cut into segments, and bounce buffers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.counters import Current, Era, Knob
from node.hw.cost import Cost
from node.hw.dma import DIRECTION_NAMES, DmaDirection
from node.hw.dma_spec import DeviceSpec
from node.machine import Machine
from node.phys.bounce import AREA_FRAMES, BouncePool
from node.phys.dma_check import check_dma
from node.phys.page import PageFlag
from node.spec import MachineSpec, WorkSpec
from node.state import State
from shared.constants import GIB, KIB, MIB, NIL, PAGE_SIZE
from tests.models.dma import BufferModel, cut
from tests.node.phys.dma_entries import (
    do_alloc_coherent,
    do_bus_frame,
    do_device_reads,
    do_device_writes,
    do_free_coherent,
    do_map,
    do_sync_for_cpu,
    do_sync_for_device,
    do_unmap,
)

pytestmark = pytest.mark.three_ways

ISA_END = 16 * MIB // PAGE_SIZE
BUFFER_FRAMES = 100


def machine(memory: int = 64 * MIB, *, bits: int = 24, **figures: Any) -> State:
    """Return a machine with one device and a mapping for it; ``dma_frame`` has room for BUFFER_FRAMES."""
    spec = MachineSpec(
        memory_bytes=memory,
        devices=(DeviceSpec("d", bits, **figures),),
        works=(WorkSpec("dma", memory_bytes=BUFFER_FRAMES * PAGE_SIZE),),
    )
    return Machine(spec).state


def give(state: State, frames: Sequence[int], direction: int) -> None:
    """Make ``frames`` the list to be mapped, and mapping 0 that of the device and direction."""
    state.dma_frame[: len(frames)] = frames
    state.dma_mapping[0].direction = direction


def segments(state: State) -> list[tuple[int, int]]:
    nr_segments = state.dma_mapping[0].nr_segments
    rows = np.asarray(state.dma_segment)[:nr_segments]
    return list(zip(rows["orig_pfn"].tolist(), rows["nr_frames"].tolist(), strict=True))


# --- coherent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "end"), [(24, ISA_END), (32, 1 << 20), (64, 1 << 52)])
def test_a_coherent_block_is_within_reach(bits: int, end: int) -> None:
    state = machine(bits=bits)
    held = state.dma_device[0].nr_held
    state.page["content"][:] = 5  # what was there before
    pfn = do_alloc_coherent(state, 0, 3)
    assert 0 <= pfn <= end - 8
    assert state.page["content"][pfn : pfn + 8].tolist() == [0] * 8
    assert state.page["page_flags"][pfn : pfn + 8].tolist() == [PageFlag.DMA] * 8
    assert state.page["refcount"][pfn : pfn + 8].tolist() == [1] * 8
    assert state.dma_device[0].nr_held == held + 8
    assert check_dma(state) == []
    do_free_coherent(state, 0, pfn, 3)
    assert state.dma_device[0].nr_held == held
    assert not state.page["page_flags"][pfn : pfn + 8].any() & PageFlag.DMA
    assert check_dma(state) == []


def test_a_zone_that_is_exhausted_is_an_error_of_the_device() -> None:
    state = machine()
    blocks = []
    while (pfn := do_alloc_coherent(state, 0, 8)) != NIL:
        blocks.append(pfn)
    assert 0 < len(blocks) <= ISA_END >> 8
    assert all(pfn + 256 <= ISA_END for pfn in blocks)
    assert state.dma_device[0].nr_errors == 1


# --- segments -------------------------------------------------------------------------------------------


@given(
    frames=st.lists(st.integers(0, 12), min_size=1, max_size=40).map(
        # Mostly ascending, so that there are runs.
        lambda steps: [5000 + sum(1 if step else 3 for step in steps[:at]) for at in range(len(steps))]
    ),
    longest=st.integers(1, 6),
    most=st.integers(1, 8),
)
def test_contiguous_frames_are_one_segment(frames: list[int], longest: int, most: int) -> None:
    state = REACHES_ALL
    state.dma_device[0].max_segment_frames = longest
    state.dma_device[0].max_segments = most
    give(state, frames, DmaDirection.TO_DEVICE)
    expected = cut(frames, longest, most)
    assert do_map(state, 0, 0, len(frames)) == sum(length for _, length in expected)
    assert segments(state) == expected
    nr_mapped = state.dma_mapping[0].nr_frames
    assert [do_bus_frame(state, 0, at) for at in range(nr_mapped)] == frames[:nr_mapped]
    do_unmap(state, 0)
    assert state.dma_mapping[0].nr_segments == 0


REACHES_ALL = machine(bits=64)


# --- bounce buffers -------------------------------------------------------------------------------------


def test_frames_out_of_reach_are_copied_and_those_within_are_not() -> None:
    state = machine()
    frames = [600, 601, 9000, 9001, 9002]
    state.page["content"][frames] = [1, 2, 3, 4, 5]
    give(state, frames, DmaDirection.TO_DEVICE)
    before = state.current[Current.CLOCK_PS]
    assert do_map(state, 0, 0, 5) == 5
    told = [do_bus_frame(state, 0, at) for at in range(5)]
    assert told[:2] == [600, 601]
    assert max(told) < ISA_END
    assert state.page["content"][told].tolist() == [1, 2, 3, 4, 5]
    assert state.dma_device[0].bounced_bytes == 3 * PAGE_SIZE
    assert state.bounce_pool[BouncePool.ISA].nr_used == 6
    assert state.current[Current.CLOCK_PS] - before == 3 * state.cost[Cost.PAGE_COPY]
    assert check_dma(state) == []
    do_unmap(state, 0)
    assert state.dma_device[0].bounced_bytes == 3 * PAGE_SIZE  # nothing comes back from what is only read
    assert state.bounce_pool[BouncePool.ISA].nr_used == 0
    assert check_dma(state) == []


@pytest.mark.parametrize("direction", [DmaDirection.FROM_DEVICE, DmaDirection.BIDIRECTIONAL])
def test_what_a_device_writes_is_in_the_buffer_after_unmap(direction: int) -> None:
    state = machine()
    state.page["content"][9000] = 7
    give(state, [9000], direction)
    do_map(state, 0, 0, 1)
    told = do_bus_frame(state, 0, 0)
    do_device_writes(state, 0, told)
    written = state.page[told].content
    assert state.page[9000].content == 7
    do_unmap(state, 0)
    assert state.page[9000].content == written != 7
    assert state.dma_device[0].bounced_bytes == 2 * PAGE_SIZE


def test_the_lecture_copies_towards_the_device_only_what_it_reads() -> None:
    state = machine()
    state.knob[Knob.ERA] = Era.LECTURE
    give(state, [9000], DmaDirection.FROM_DEVICE)
    do_map(state, 0, 0, 1)
    assert state.dma_device[0].bounced_bytes == 0
    do_unmap(state, 0)
    assert state.dma_device[0].bounced_bytes == PAGE_SIZE


def test_sync_copies_without_ending_the_mapping() -> None:
    state = machine()
    give(state, [9000], DmaDirection.BIDIRECTIONAL)
    do_map(state, 0, 0, 1)
    told = do_bus_frame(state, 0, 0)
    state.page[9000].content = 11
    do_sync_for_device(state, 0)
    assert state.page[told].content == 11
    do_device_reads(state, 0, told)
    state.page[told].content = 12
    do_sync_for_cpu(state, 0)
    assert state.page[9000].content == 12
    assert state.dma_mapping[0].nr_frames == 1


@pytest.mark.parametrize(
    ("direction", "sync"),
    [(DmaDirection.FROM_DEVICE, do_sync_for_device), (DmaDirection.TO_DEVICE, do_sync_for_cpu)],
)
def test_sync_against_the_direction_does_nothing(direction: int, sync: Any) -> None:
    state = machine()
    give(state, [9000], direction)
    do_map(state, 0, 0, 1)
    copied = state.dma_device[0].bounced_bytes
    sync(state, 0)
    assert state.dma_device[0].bounced_bytes == copied


def test_a_full_pool_undoes_the_whole_mapping() -> None:
    state = machine(max_segment_bytes=256 * KIB)
    pool = state.bounce_pool[BouncePool.ISA]
    pool.nr_used = pool.nr_slots - 2  # as if others held all but one page
    give(state, [600, 9000, 9500], DmaDirection.TO_DEVICE)
    assert do_map(state, 0, 0, 3) == NIL
    assert (state.dma_mapping[0].nr_segments, state.dma_mapping[0].nr_frames) == (0, 0)
    assert pool.nr_used == pool.nr_slots - 2
    assert (pool.nr_full, state.dma_device[0].nr_errors) == (1, 1)


@pytest.mark.parametrize(
    ("memory", "bits", "slots"),
    [(64 * MIB, 24, (512, 0)), (64 * MIB, 32, (0, 0)), (64 * MIB, 64, (0, 0))],
)
def test_there_are_bounce_buffers_where_a_device_may_need_them(
    memory: int, bits: int, slots: tuple[int, int]
) -> None:
    state = machine(memory, bits=bits)
    assert tuple(state.bounce_pool["nr_slots"].tolist()) == slots


@pytest.mark.slow  # a machine of 1.1 M frames is built
def test_a_32_bit_device_has_64_mib_below_4_gib() -> None:
    state = machine(4 * GIB + 256 * MIB, bits=32)
    pool = state.bounce_pool[BouncePool.PCI]
    assert pool.nr_slots * 2 * KIB == 64 * MIB
    areas = state.bounce_area[: 64 * MIB // (AREA_FRAMES * PAGE_SIZE)]
    assert (areas + AREA_FRAMES <= 1 << 20).all()
    above = (1 << 20) + 100
    give(state, [above], DmaDirection.TO_DEVICE)
    assert do_map(state, 0, 0, 1) == 1
    assert do_bus_frame(state, 0, 0) < 1 << 20
    assert check_dma(state) == []


# --- anything after anything ------------------------------------------------------------------------------

NR_BUFFERS = 4
BUFFER_PAGES = 5
NAMES = ("to_device", "from_device", "bidirectional")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("map", "unmap", "cpu", "device", "for_device", "for_cpu", "coherent", "give back")),
        st.integers(0, NR_BUFFERS - 1),
        st.integers(0, BUFFER_PAGES - 1),
        st.sampled_from(NAMES),
    ),
    max_size=60,
)
SYNCS: dict[str, tuple[Callable[[State, int], None], str]] = {
    "for_device": (do_sync_for_device, "to_device"),
    "for_cpu": (do_sync_for_cpu, "from_device"),
}


def shared_machine() -> State:
    """Return a machine of four buffers, each of pages below and above the device's reach."""
    spec = MachineSpec(
        memory_bytes=64 * MIB,
        devices=(DeviceSpec("d", 24),),
        works=(
            WorkSpec("dma", memory_bytes=BUFFER_FRAMES * PAGE_SIZE),
            WorkSpec("dma", memory_bytes=PAGE_SIZE),
        ),
    )
    state = Machine(spec).state
    for buffer in range(NR_BUFFERS):
        low, high = 600 + 10 * buffer, 9000 + 10 * buffer
        first = buffer * BUFFER_PAGES
        state.dma_frame[first : first + BUFFER_PAGES] = [low, low + 1, high, high + 1, high + 3]
    return state


SHARED = shared_machine()


@given(steps=STEPS)
def test_buffers_hold_what_was_written_last_by_whoever_may_write(
    steps: list[tuple[str, int, int, str]],
) -> None:
    state = SHARED
    frames = [int(pfn) for pfn in state.dma_frame[: NR_BUFFERS * BUFFER_PAGES]]
    rows = [frames[at : at + BUFFER_PAGES] for at in range(0, len(frames), BUFFER_PAGES)]
    models = [
        BufferModel(state.page["content"][row].tolist(), [pfn < ISA_END for pfn in row]) for row in rows
    ]
    blocks: list[int] = []
    for number, (what, buffer, page, direction) in enumerate(steps):
        model = models[buffer]
        is_mapped = bool(model.device_sees)
        if what == "map" and not is_mapped:
            state.dma_mapping[buffer].direction = DIRECTION_NAMES[direction]
            assert do_map(state, buffer, buffer * BUFFER_PAGES, BUFFER_PAGES) == BUFFER_PAGES
            model.map(direction)
        elif what == "unmap" and is_mapped:
            do_unmap(state, buffer)
            model.unmap()
        elif what == "cpu":
            state.page[rows[buffer][page]].content = number + 1
            model.write(False, page, number + 1)
        elif what == "device" and is_mapped:
            state.page[do_bus_frame(state, buffer, page)].content = -number - 1
            model.write(True, page, -number - 1)
        elif what in SYNCS and is_mapped:
            sync, towards = SYNCS[what]
            sync(state, buffer)
            model.sync(towards)
        elif what == "coherent":
            blocks.append(do_alloc_coherent(state, 0, 1))
        elif what == "give back" and blocks:
            do_free_coherent(state, 0, blocks.pop(page % len(blocks)), 1)
        assert state.page["content"][rows[buffer]].tolist() == model.contents
        assert check_dma(state) == []
    for buffer in range(NR_BUFFERS):
        do_unmap(state, buffer)  # nothing, if it is not mapped
    for pfn in blocks:
        do_free_coherent(state, 0, pfn, 1)
    assert not state.bounce_pool["nr_used"].any()


# --- invariants: each can fail --------------------------------------------------------------------------


def mapped() -> State:
    state = machine()
    give(state, [600, 9000], DmaDirection.TO_DEVICE)
    do_map(state, 0, 0, 2)
    assert check_dma(state) == []
    return state


SPOILS: list[tuple[Callable[[State], None], str]] = [
    (lambda state: setattr(state.page[state.bounce_area[0]], "page_flags", 0), "holds bounce buffers"),
    (lambda state: setattr(state.page[20000 % len(state.page)], "page_flags", PageFlag.DMA), "held by"),
    (lambda state: setattr(state.dma_segment[1], "bus_pfn", 9000), "cannot reach frame 9000"),
    (lambda state: setattr(state.dma_mapping[0], "nr_frames", 3), "mapping 0.nr_frames"),
    (lambda state: setattr(state.bounce_slot[5], "nr_free", 0), "bounce slot 5.nr_free"),
    (lambda state: setattr(state.bounce_pool[0], "nr_used", 0), "bounce pool ISA.nr_used"),
    (lambda state: setattr(state.bounce_pool[0], "max_used", 999), "bounce pool ISA.max_used"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILS, ids=[said for _, said in SPOILS])
def test_each_contradiction_is_named(spoil: Callable[[State], None], said: str) -> None:
    state = mapped()
    spoil(state)
    assert any(said in line for line in check_dma(state))
