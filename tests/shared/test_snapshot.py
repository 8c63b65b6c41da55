"""Snapshots: what goes in comes out, and nothing else does."""

import numpy as np
import pytest

from shared.snapshot import pack_snapshot, tables_digest, unpack_snapshot

RECORD = np.dtype([("a", np.int64), ("b", np.int32)], align=True)


def tables() -> list[tuple[str, np.ndarray]]:
    records = np.zeros(3, RECORD)
    records["a"] = [1, -2, 3]
    return [("numbers", np.arange(5, dtype=np.int32)), ("records", records), ("none", np.empty(0, np.int8))]


def test_tables_come_back_bit_by_bit() -> None:
    found = unpack_snapshot("x", pack_snapshot("x", tables()))
    assert list(found) == ["numbers", "records", "none"]
    for name, table in tables():
        assert found[name].tobytes() == table.tobytes()


def test_equal_tables_give_equal_bytes() -> None:
    assert pack_snapshot("x", tables()) == pack_snapshot("x", tables())


def test_every_wrong_byte_is_noticed() -> None:
    data = pack_snapshot("x", tables())
    for at in range(len(data)):
        with pytest.raises(ValueError, match="snapshot: "):
            unpack_snapshot("x", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ValueError, match="snapshot: "):
            unpack_snapshot("x", data[:at])


def test_another_members_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match="is of 'x', not of 'y'"):
        unpack_snapshot("y", pack_snapshot("x", tables()))


def test_a_digest_tells_tables_apart() -> None:
    changed = tables()
    changed[0][1][2] = 9
    assert tables_digest(tables()) == tables_digest(tables())
    assert len({tables_digest(tables()), tables_digest(changed), tables_digest(tables()[:2])}) == 3
