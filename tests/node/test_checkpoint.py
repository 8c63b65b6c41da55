"""Checkpoints: what comes back behaves to the bit as what was kept, and damage is always noticed."""

import struct
from itertools import pairwise

import msgpack
import numpy as np
import pytest
import xxhash
import zstandard

from node.checkpoint import CheckpointError, digest, restore, snapshot
from node.counters import Request
from node.invariants import check
from node.state import State
from node.used_parts import used_parts
from tests.node.busy_machine import BusyMachine
from tests.node.vm_machine import VmMachine

pytestmark = pytest.mark.three_ways


@pytest.fixture(scope="module")
def busy() -> BusyMachine:
    return BusyMachine()


@pytest.fixture(scope="module")
def kept(busy: BusyMachine) -> bytes:
    return snapshot(busy.state, {"finished": False, "name": "busy"})


def copy_of(busy: BusyMachine, kept: bytes) -> BusyMachine:
    """Return a machine with the restored state, and the processes where the first one has them."""
    copy = object.__new__(BusyMachine)
    vars(copy).update(vars(busy))
    copy.state, _ = restore(kept)
    return copy


def test_what_comes_back_is_what_was_kept(busy: BusyMachine, kept: bytes) -> None:
    state, header = restore(kept)
    assert header == {"finished": False, "name": "busy"}
    assert digest(state) == digest(busy.state)
    assert [len(table) for _, table in state.tables()] == [len(table) for _, table in busy.state.tables()]
    assert snapshot(state, header) == kept
    check(state)


def test_a_restored_machine_goes_on_as_the_first_one_would_have(busy: BusyMachine, kept: bytes) -> None:
    first, second = copy_of(busy, kept), copy_of(busy, kept)
    found = first.go_on()
    assert digest(first.state) != digest(busy.state)
    half_way, _ = restore(snapshot(second.state, {}))
    second.state = half_way
    assert second.go_on() == found
    assert digest(second.state) == digest(first.state)
    check(first.state)


def test_a_checkpoint_is_a_small_part_of_what_is_reserved(busy: BusyMachine, kept: bytes) -> None:
    reserved = sum(table.nbytes for _, table in busy.state.tables())
    assert len(kept) < reserved // 100


def test_the_digest_depends_on_behaviour_not_on_scratch() -> None:
    machine = VmMachine()
    before = digest(machine.state)
    machine.state.request[Request.A0] = 12345
    machine.state.pt_word[7 * 512] = 99  # frame 7 is no page table
    machine.state.vma[50].start = 4096  # behind the mark
    assert digest(machine.state) == before
    machine.state.page[9000].content = 1
    assert digest(machine.state) != before


def test_every_damaged_byte_is_noticed() -> None:
    kept = snapshot(VmMachine().state, {})
    for position in range(len(kept)):
        damaged = bytearray(kept)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CheckpointError):
            restore(bytes(damaged))


def test_a_checkpoint_that_was_cut_off_is_noticed(kept: bytes) -> None:
    for length in (0, 1, 27, 28, 100, len(kept) // 2, len(kept) - 1):
        with pytest.raises(CheckpointError, match=r"^checkpoint: "):
            restore(kept[:length])


# --- headers that were written on purpose: the hash is right, what they say is not ----------------------


def forged(kept: bytes, change: str) -> bytes:
    """Return a checkpoint with another header or body, and the hash that belongs to it."""
    start = struct.Struct("<4sI16sI")
    magic, version, _, length = start.unpack_from(kept)
    header = msgpack.unpackb(kept[start.size : start.size + length])
    body = kept[start.size + length :]
    page = next(row for row in header["tables"] if row[0] == "page")
    if change == "longer":
        page[2] = 1 << 60
    elif change == "more used":
        page[3] += 1
    elif change == "negative":
        page[3] = -1
    elif change == "other records":
        page[1] = page[1].replace("refcount", "recount")
    elif change == "other tables":
        page[0] = "pages"
    elif change == "shorter body":
        body = zstandard.compress(b"x" * 100, 1)
    elif change == "no body":
        body = b"nothing"
    elif change == "no rows":
        header["tables"] = [{"page": 1}]
    elif change == "other mark":
        mm = next(row for row in header["tables"] if row[0] == "mm")
        mm_bytes, page_bytes = (State.LAYOUT[name].dtype.itemsize for name in ("mm", "page"))
        page[3] -= mm_bytes  # so that the sum of bytes stays right
        mm[3] += page_bytes
    described: bytes = msgpack.packb(header)
    found = xxhash.xxh3_128(len(described).to_bytes(4, "little"))
    found.update(described)
    found.update(body)
    return start.pack(magic, version, found.digest(), len(described)) + described + body


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("longer", "table page has"),
        ("more used", "table page has|holds"),
        ("negative", "table page has -1 of"),
        ("other records", r"another version of the machine \(records of table page\)"),
        ("other tables", r"another version of the machine \(tables page, pages\)"),
        ("shorter body", "holds 100 bytes of tables"),
        ("no body", "tables cannot be read"),
        ("no rows", "header cannot be read"),
        ("other mark", "other tables say"),
    ],
)
def test_a_header_that_says_nonsense_is_refused_in_one_line(kept: bytes, change: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        restore(forged(kept, change))
    assert "\n" not in str(caught.value)


def test_every_rule_of_the_state_is_known_and_reads_tables_that_come_first() -> None:
    state = VmMachine().state
    for name in State.LAYOUT:
        parts = list(used_parts(state, name))
        assert all(np.shares_memory(part, vars(state)[name]) for part in parts if len(part))
    order = list(State.LAYOUT)
    before = ("current", "pool", "pool_link", "page", "pt_word", "mm")
    assert all(order.index(a) < order.index(b) for a, b in pairwise(before))
