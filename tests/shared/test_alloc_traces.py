"""Allocation traces: files give back what was written, and each way to be wrong is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from shared import gfp_flags
from shared.alloc_csv import write_csv
from shared.alloc_kind import AllocKind, AllocOp
from shared.alloc_traces import AllocTrace, check_cpus, load_alloc_trace, make_trace, save_alloc_trace
from shared.gfp_flags import GFP_ATOMIC, GFP_KERNEL, Gfp, format_gfp, parse_gfp
from tests.models.allocation_trace import Row, columns_of, rows_of_traces, trace_of_rows

ALLOC, FREE = int(AllocOp.ALLOC), int(AllocOp.FREE)
KMALLOC, FRAMES = int(AllocKind.KMALLOC), int(AllocKind.FRAMES)
GOOD: list[Row] = [
    (0, ALLOC, KMALLOC, 512, GFP_ATOMIC, 7),
    (0, ALLOC, FRAMES, 3, GFP_KERNEL, 8),
    (1, FREE, 0, 0, 0, 7),
    (0, ALLOC, int(AllocKind.VMALLOC), 9000, GFP_KERNEL, 7),
]


def as_lists(trace: AllocTrace) -> list[list[int]]:
    columns = (trace.cpu, trace.op, trace.kind, trace.size, trace.gfp, trace.number)
    return [column.tolist() for column in columns]


def test_allocations_are_numbered_and_frees_say_what_they_free() -> None:
    trace = trace_of_rows(GOOD)
    assert trace.number.tolist() == [0, 1, 0, 2]
    assert trace.kind.tolist() == [KMALLOC, FRAMES, KMALLOC, AllocKind.VMALLOC]
    assert trace.size.tolist() == [512, 3, 512, 9000]
    assert (trace.nr_events, trace.nr_allocations, trace.cpus) == (4, 3, [0, 1])


def test_a_closed_trace_frees_what_is_left_where_it_was_allocated() -> None:
    closed = trace_of_rows(GOOD).closed()
    assert closed.op.tolist() == [ALLOC, ALLOC, FREE, ALLOC, FREE, FREE]
    assert closed.number.tolist() == [0, 1, 0, 2, 1, 2]
    assert closed.cpu.tolist()[-2:] == [0, 0]
    assert as_lists(closed.closed()) == as_lists(closed)


@given(rows_of_traces())
def test_both_files_give_back_the_trace(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    trace = trace_of_rows(rows)
    folder = tmp_path_factory.mktemp("traces")
    save_alloc_trace(folder / "a.npz", trace)
    (folder / "a.csv").write_text("".join(write_csv(trace)))
    for name in ("a.npz", "a.csv"):
        assert as_lists(load_alloc_trace(folder / name)) == as_lists(trace)


def test_text_may_have_comments_and_say_nothing_of_what_is_freed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "cpu,op,kind,size,gfp,id\n# by hand\n\n0,alloc,kmalloc,512,GFP_ATOMIC,7\n 1 , free ,,,, 7\n"
    )
    trace = load_alloc_trace(tmp_path / "a.csv")
    assert as_lists(trace) == [[0, 1], [ALLOC, FREE], [KMALLOC] * 2, [512] * 2, [GFP_ATOMIC] * 2, [0, 0]]


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, FREE, 0, 0, 0, 7)], "event 0: frees id 7, which was never allocated"),
        ([*GOOD[:3], GOOD[2]], "event 3: frees id 7, which event 2 has freed already"),
        ([GOOD[0], GOOD[0]], "event 1: allocates id 7, which is in use since event 0"),
        ([(0, ALLOC, FRAMES, 11, 0, 7)], "event 0: order 11 is outside 0..10"),
        ([(0, ALLOC, KMALLOC, 0, 0, 7)], r"event 0: size 0 is outside 1..4194304 bytes \(kmalloc\)"),
        ([(0, ALLOC, KMALLOC, 4194305, 0, 7)], "event 0: size 4194305 is outside"),
        ([(0, ALLOC, 4, 8, 0, 7)], "event 0: kind 4 is none of 0 "),
        ([(0, 2, 0, 8, 0, 7)], "event 0: op 2 is neither"),
        ([(64, ALLOC, 0, 8, 0, 7)], r"event 0: CPU 64 is outside 0..63"),
        ([(0, ALLOC, 0, 8, 1 << 28, 7)], "event 0: gfp 0x10000000 is outside"),
    ],
)
def test_what_cannot_have_been_recorded_is_refused(rows: list[Row], message: str) -> None:
    with pytest.raises(ValueError, match=f"^mine: {message}") as refused:
        make_trace("mine", columns_of(rows))
    assert "\n" not in str(refused.value)


def test_a_machine_without_the_cpu_is_refused() -> None:
    trace = trace_of_rows(GOOD)
    check_cpus("here", trace, 2)
    with pytest.raises(ValueError, match=r"^here: event 2: CPU 1, but the machine has 1 CPUs$"):
        check_cpus("here", trace, 1)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda columns: columns.pop(name)


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda columns: columns.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("gfp"), "column gfp is missing"),
        (changed("version", np.array([2], np.int32)), "column version: is 2, and this program reads 1"),
        (changed("cpu", np.zeros(3, np.uint8)), "column"),
        (changed("size", np.ones(4, np.float64)), "column size"),
        (changed("cpu", np.zeros(0, np.uint8)), "column"),
    ],
)
def test_a_file_that_is_none_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    save_alloc_trace(tmp_path / "a.npz", trace_of_rows(GOOD))
    columns = dict(np.load(tmp_path / "a.npz"))
    change(columns)
    np.savez(tmp_path / "b.npz", **columns)
    with pytest.raises(ValueError, match=rf"^\S+b\.npz: {message}") as refused:
        load_alloc_trace(tmp_path / "b.npz")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line is not cpu,op,kind,size,gfp,id"),
        ("cpu,op\n", "line 1: 2 cells instead of 6"),
        ("cpu,op,kind,size,gfp,id\n0,alloc,kmalloc,8\n", "line 2: 4 cells instead of 6"),
        ("cpu,op,kind,size,gfp,id\n0,take,kmalloc,8,none,1\n", "line 2: op 'take' is none of alloc, free"),
        ("cpu,op,kind,size,gfp,id\n0,alloc,page,8,none,1\n", "line 2: kind 'page' is none of kmalloc, "),
        ("cpu,op,kind,size,gfp,id\n0,alloc,kmalloc,-8,none,1\n", "line 2: size '-8' is no number of 0.."),
        ("cpu,op,kind,size,gfp,id\n0,alloc,kmalloc,8,GFP_X,1\n", "line 2: 'GFP_X' is no GFP flag"),
        ("cpu,op,kind,size,gfp,id\n", "has no events"),
        ("cpu,op,kind,size,gfp,id\n0,alloc,kmalloc,8,none," + "9" * 99 + "\n", "line 2: id '999"),
    ],
)
def test_text_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"^\S+a\.csv: {message}") as refused:
        load_alloc_trace(tmp_path / "a.csv")
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe")
    for name, message in (
        ("a.csv", "not text"),
        ("no.csv", "No such file or directory"),
        ("no.npz", "No such file or directory"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            load_alloc_trace(tmp_path / name)


# --- flags ----------------------------------------------------------------------------------------------


def test_flags_have_linuxs_bits() -> None:
    # A few of include/linux/gfp_types.h.
    assert (Gfp.MOVABLE, Gfp.ZERO, Gfp.DIRECT_RECLAIM, Gfp.COMP) == (0x08, 0x100, 0x400, 0x40000)
    assert parse_gfp("GFP_KERNEL|__GFP_ZERO") == GFP_KERNEL | Gfp.ZERO
    assert parse_gfp("GFP_ATOMIC") == GFP_ATOMIC
    assert parse_gfp("none") == 0
    assert parse_gfp("0xcc0") == parse_gfp("3264") == GFP_KERNEL


def test_flags_are_written_as_linux_writes_them() -> None:
    assert format_gfp(0) == "none"
    assert format_gfp(GFP_KERNEL | Gfp.ZERO) == "GFP_KERNEL|__GFP_ZERO"
    assert format_gfp(gfp_flags.GFP_HIGHUSER_MOVABLE) == "GFP_HIGHUSER_MOVABLE"
    for name in gfp_flags.NAMES:
        assert parse_gfp(format_gfp(parse_gfp(name))) == parse_gfp(name)
    assert parse_gfp(format_gfp(1 << 27)) == 1 << 27
