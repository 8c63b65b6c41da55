"""The state type: tables that never move, records that read as integers, the same compiled and not."""

import ctypes
import importlib
import os
from pathlib import Path

import numpy as np
import pytest

import node
from node.phys.page import PAGE
from node.state import State
from shared.constants import INT64_MAX, INT64_MIN, NIL
from shared.jit import COMPILED, entry
from shared.kernel_state import Counters, KernelState, Records, reserve, state_pointer, table
from shared.panic import INDEX_OUTSIDE_TABLE, KernelPanic

pytestmark = pytest.mark.three_ways

THING = np.dtype([("wide", np.int64), ("link", np.int32), ("short", np.int16), ("tiny", np.int8)], align=True)


class Things(KernelState):
    """A few records and integers."""

    panic: Counters = table(np.int64)
    thing: Records = table(THING)
    narrow: Counters = table(np.int8)
    result: Counters = table(np.int64)


@pytest.fixture
def state() -> Things:
    return Things(panic=4, thing=8, narrow=4, result=8)


@entry
def shift_link(state: Things, index: int, bits: int) -> int:
    return state.thing[index].link << bits


@entry
def store_all(state: Things, index: int, value: int) -> None:
    thing = state.thing[index]
    thing.wide = value
    thing.link = value
    thing.short = value
    thing.tiny = value
    state.narrow[0] = value


@entry
def lengths(state: Things) -> None:
    state.result[0] = len(state.thing)
    state.result[1] = len(state.narrow)


@entry
def add_to_fields(state: Things, index: int, value: int) -> int:
    thing = state.thing[index]
    thing.wide += value
    thing.tiny -= 1
    return thing.wide + thing.tiny


# --- reading and writing --------------------------------------------------------------------------------


def test_a_field_is_stored_and_read_at_its_own_width(state: Things) -> None:
    for value in (0, 1, -1, 127, -128):
        store_all(state, 3, value)
        thing = state.thing[3]
        assert (thing.wide, thing.link, thing.short, thing.tiny, state.narrow[0]) == (value,) * 5
    assert state.thing[2].wide == state.thing[4].wide == 0


def test_a_narrow_field_is_an_int64_once_it_is_read(state: Things) -> None:
    # As an int32 it would overflow: numpy does so silently, which is why records read as Python integers.
    state.thing[1].link = 0x7FFF_FFFF
    assert shift_link(state, 1, 12) == 0x7FFF_FFFF << 12
    state.thing[1].link = NIL
    assert shift_link(state, 1, 9) == NIL << 9
    assert type(state.thing[1].link) is int
    assert type(state.narrow[0]) is int


def test_fields_are_added_to_in_place(state: Things) -> None:
    state.thing[0].wide = INT64_MAX - 10
    assert add_to_fields(state, 0, 10) == INT64_MAX - 1
    state.thing[0].wide = INT64_MIN + 10
    assert add_to_fields(state, 0, -7) == INT64_MIN + 3 - 2


@pytest.mark.parametrize(("value", "cut_off"), [(128, -128), (-129, 127)])
def test_a_store_that_does_not_fit_is_cut_off_compiled_and_raises_uncompiled(
    state: Things, value: int, cut_off: int
) -> None:
    if COMPILED:
        store_all(state, 0, value)
        assert state.thing[0].tiny == cut_off
    else:
        with pytest.raises((OverflowError, ValueError)):
            store_all(state, 0, value)


def test_the_length_of_a_table_is_known_to_kernels(state: Things) -> None:
    lengths(state)
    assert state.result[:2].tolist() == [8, 4]


@pytest.mark.parametrize("index", [8, -1, NIL])
def test_python_cannot_read_or_write_behind_a_table(state: Things, index: int) -> None:
    with pytest.raises(KernelPanic) as caught:
        state.thing[index].wide = 1
    assert caught.value.code == INDEX_OUTSIDE_TABLE
    with pytest.raises(KernelPanic):
        state.narrow[index] = 1
    with pytest.raises(KernelPanic):
        assert state.narrow[index]


def test_a_record_has_the_fields_of_its_type_only(state: Things) -> None:
    with pytest.raises(AttributeError):
        assert state.thing[0].size
    with pytest.raises(AttributeError):
        state.thing[0].flags = 1


# --- the state as a whole -------------------------------------------------------------------------------


def test_a_table_of_a_built_state_is_never_replaced(state: Things) -> None:
    with pytest.raises(AttributeError, match=r"Things\.thing: the tables of a built state never move"):
        state.thing = np.zeros(8, THING)  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        state.other = 1


def test_tables_stay_where_kernels_know_them(state: Things) -> None:
    entries = np.ctypeslib.as_array((ctypes.c_int64 * 8).from_address(state_pointer(state)))
    arrays = [array for _, array in state.tables()]
    assert entries[0::2].tolist() == [array.ctypes.data for array in arrays]
    assert entries[1::2].tolist() == [4, 8, 4, 8]


def test_lengths_are_given_for_every_table_and_no_other() -> None:
    with pytest.raises(ValueError, match="Things: table lengths missing or unknown: result, results"):
        Things(panic=4, thing=8, narrow=4, results=8)


def test_a_reserved_table_costs_memory_only_where_it_is_touched() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident_bytes()
    big = reserve(1 << 33, np.dtype(np.int64))
    big[1 << 32] = 1
    assert big[0] == 0
    assert resident_bytes() - before < 1 << 24


# --- the record types of node ---------------------------------------------------------------------------


def test_no_field_hides_what_numpy_calls_so() -> None:
    # `records["size"]` would do, but `records.size` is what uncompiled kernels would read.
    hidden = set(dir(np.ndarray)) | set(dir(np.recarray))
    for name, spec in State.LAYOUT.items():
        assert not hidden & set(spec.dtype.names or ()), name


def test_every_field_is_a_signed_integer_and_no_link_is_narrow() -> None:
    for name, spec in State.LAYOUT.items():
        for field in spec.dtype.names or ():
            kind = spec.dtype[field]
            assert kind.kind == "i", (name, field)
            if field in {"next", "prev", "first", "last", "parent"}:
                assert kind.itemsize >= 4, (name, field)


def test_a_frame_descriptor_fits_a_cache_line() -> None:
    assert PAGE.itemsize <= 64


def test_every_record_type_of_node_belongs_to_a_table() -> None:
    used = {str(spec.dtype.descr) for spec in State.LAYOUT.values()}
    root = Path(node.__file__ or "").parent
    for path in sorted(root.rglob("*.py")):
        if "np.dtype(" not in path.read_text():
            continue
        module = importlib.import_module(".".join(("node", *path.relative_to(root).with_suffix("").parts)))
        states = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, KernelState)
        ]
        known = used | {str(spec.dtype.descr) for found in states for spec in found.LAYOUT.values()}
        for name, value in vars(module).items():
            if isinstance(value, np.dtype) and value.names:
                assert str(value.descr) in known, f"{module.__name__}.{name}"
