"""Recorded traces: read as they were recorded, and each way to be wrong refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.trace_kind import TraceKind
from shared.traces import MAX_RUNS, load_trace, save_trace
from tests.models.recorded_trace import Run, trace_of

DATA = Path(__file__).resolve().parent.parent.parent / "scenarios" / "data" / "traces"
TRACES = sorted(DATA.glob("*.npz"))
FIRST: list[Run] = [
    (0x400, 3, TraceKind.FETCH),
    (0x402, 1, TraceKind.STORE),
    (0x400, 70_000, TraceKind.FETCH),
]
STEADY: list[Run] = [(0x401, 2, TraceKind.LOAD), (0x402, 1, TraceKind.MODIFY)]


def columns_of_a_trace() -> dict[str, Any]:
    """Return the columns of a trace of three pages, as a recorder writes them."""
    return {
        "pages": np.array([0x400, 0x401, 0x402], np.uint64),
        "w0_page": np.array([0, 2, 0], np.uint16),
        "w0_count": np.array([3, 1, 2], np.uint16),
        "w0_kind": np.array([0, 2, 0], np.uint8),
        "w1_page": np.array([1, 2], np.uint32),
        "w1_count": np.array([2, 1], np.uint32),
        "w1_kind": np.array([1, 3], np.uint8),
        "meta": np.array(json.dumps({"name": "test"})),
    }


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_trace(path, trace_of(FIRST, STEADY))
    trace = load_trace(path)
    assert trace.pages.tolist() == [0x400, 0x401, 0x402]
    assert trace.meta == {"name": "test"}
    for window, runs in zip(trace.windows, (FIRST, STEADY), strict=True):
        assert trace.pages[window.page].tolist() == [page for page, _, _ in runs]
        assert window.count.tolist() == [count for _, count, _ in runs]
        assert window.kind.tolist() == [kind for _, _, kind in runs]
    assert [window.nr_accesses for window in trace.windows] == [70_004, 3]
    assert list(tmp_path.iterdir()) == [path]


def test_writing_a_trace_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_trace(tmp_path / name, trace_of(FIRST, STEADY))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_trace_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_trace(tmp_path / "absent" / "a.npz", trace_of(FIRST))
    assert list(tmp_path.iterdir()) == []


def test_either_width_of_index_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **columns_of_a_trace())
    assert [window.page.tolist() for window in load_trace(path).windows] == [[0, 2, 0], [1, 2]]


def test_columns_that_are_not_read_may_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **columns_of_a_trace(), ep_page=np.zeros(9, np.uint16))
    assert len(load_trace(path).pages) == 3


def test_all_four_traces_are_there() -> None:
    assert [path.stem for path in TRACES] == ["cc1", "python3", "sort", "sqlite3"]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_every_recorded_trace_has_what_it_says(path: Path) -> None:
    trace = load_trace(path)
    assert trace.meta["name"] == path.stem
    assert len(trace.pages) == trace.meta["total_pages"]
    for number, window in enumerate(trace.windows):
        said = trace.meta[f"w{number}"]
        assert len(window.page) == said["runs"]
        assert window.nr_accesses == said["accesses"]
        assert len(np.unique(window.page)) == said["pages"]
        by_kind = [int(window.count[window.kind == kind].sum()) for kind in TraceKind]
        assert by_kind == [said[name] for name in ("instr", "loads", "stores", "modify")]
        assert not np.any((np.diff(window.page.astype(int)) == 0) & (np.diff(window.kind.astype(int)) == 0))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"w1_kind": None}, "column w1_kind is missing"),
        ({"pages": None}, "column pages is missing"),
        ({"meta": None}, "column meta is missing"),
        ({"pages": np.array([1024.0, 1025.0])}, "column pages is float64, not uint64"),
        ({"w0_page": np.zeros(3, np.int64)}, "column w0_page is int64, not uint16 or uint32"),
        ({"w0_kind": np.zeros(3, np.uint16)}, "column w0_kind is uint16, not uint8"),
        ({"w0_count": np.ones(2, np.uint16)}, "column w0_count has 2 entries where others have 3"),
        ({"w1_kind": np.zeros((2, 1), np.uint8)}, "column w1_kind has 2 axes, not 1"),
        ({"pages": np.zeros(0, np.uint64)}, "column pages: 0 is outside 1..16777216"),
        ({"w0_page": np.zeros(0, np.uint16)}, f"column w0_page: 0 is outside 1..{MAX_RUNS}"),
        ({"w0_page": np.array([0, 3, 0], np.uint16)}, "column w0_page refers to 0..3, outside 0..2"),
        ({"w1_kind": np.array([1, 4], np.uint8)}, "column w1_kind refers to 1..4, outside 0..3"),
        ({"w0_count": np.array([1, 0, 2], np.uint16)}, "column w0_count: run 1 has 0 accesses"),
        (
            {"w1_count": np.array([2**31, 1], np.uint32)},
            "column w1_count: 2147483649 accesses are above the limit of 2147483648",
        ),
        (
            {"pages": np.array([0x400, 0x402, 0x402], np.uint64)},
            "column pages: page 0x402 at 2 does not rise above the one before it",
        ),
        (
            {"pages": np.array([0x400, 0x402, 0x401], np.uint64)},
            "column pages: page 0x401 at 2 does not rise above the one before it",
        ),
        (
            {"pages": np.array([0, 1, 2], np.uint64)},
            "column pages: page 0x0, address 0x0, is outside 0x10000..0x7fffffffefff",
        ),
        (
            {"pages": np.array([0x400, 0x401, 2**64 - 1], np.uint64)},
            "column pages: page 0xffffffffffffffff, address 0xffffffffffffffff000, is outside 0x10000..",
        ),
        ({"meta": np.array("[]")}, "column meta is not a JSON object"),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    changed = columns_of_a_trace() | change
    path = tmp_path / "wrong.npz"
    np.savez_compressed(path, **{name: column for name, column in changed.items() if column is not None})
    with pytest.raises(ValueError, match=r"^\S+wrong\.npz: column [^\n]+$") as caught:
        load_trace(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _data: b"", lambda _data: b"just text\n" * 99]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "damaged.npz"
    path.write_bytes(damage(TRACES[0].read_bytes()))
    with pytest.raises(ValueError, match=r"^\S+damaged\.npz: not a whole \.npz file \([^\n]+\)$"):
        load_trace(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.npz: No such file or directory"):
        load_trace(tmp_path / "absent.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **columns_of_a_trace() | {"pages": np.array([Bomb()], dtype=object)})
    with pytest.raises(ValueError, match="column pages is object, not uint64"):
        load_trace(path)
    assert not (tmp_path / "exploded").exists()
