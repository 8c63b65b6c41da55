"""The benchmark of traces: what it counts, and over which replay."""

from pathlib import Path

import pytest

from benchmarks.traces import replay
from shared.trace_kind import TraceKind
from tests.models.recorded_trace import write_trace


@pytest.mark.parametrize(("huge_pages", "page_size"), [("none", "4 KiB"), ("2M", "2 MiB")])
def test_the_second_replay_is_counted(tmp_path: Path, huge_pages: str, page_size: str) -> None:
    runs = [(0x400, 3, TraceKind.FETCH), (0x401, 2, TraceKind.STORE), (0x402, 1, TraceKind.LOAD)]
    path = Path(write_trace(tmp_path / "small.npz", runs))
    found = replay(path, (0, 1), huge_pages)
    assert (found.trace, found.page_size, found.accesses) == ("small", page_size, 12)
    for served in (found.data, found.instructions):
        assert 6 <= sum(served) < 2 * 6  # the kernel's own, at the switch to the process, are among them
    assert found.data[2] == found.instructions[2] == 0
    assert found.accesses_per_s > 0
    assert found.line().split()[:4] == ["small", "0+1", *found.page_size.split()]
