"""Converting Linux's kmem events: pairs by address, and says what it left out."""

from pathlib import Path

import pytest

from scenarios.alloc_ftrace import convert_ftrace, main
from shared.alloc_kind import AllocKind, AllocOp
from shared.alloc_traces import load_alloc_trace
from shared.gfp_flags import parse_gfp

HEAD = "# tracer: nop\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
RECORDING = (
    HEAD + """\
          <idle>-0       [001] d.s2.  52.000001: kmem_cache_free: call_site=napi+0x1/0x2 ptr=00000000aa name=skbuff
            sshd-812     [001] .....  52.000002: kmalloc: call_site=f+0x5/0x10 ptr=00000000f3 bytes_req=500 """
    """bytes_alloc=512 gfp_flags=GFP_KERNEL|__GFP_ZERO node=-1 accounted=false
            sshd-812     [001] .....  52.000003: kmem_cache_alloc: call_site=g+0x5/0x10 ptr=00000000f8 """
    """bytes_req=192 bytes_alloc=192 gfp_flags=GFP_KERNEL_ACCOUNT node=-1 accounted=true
            sshd-812     [000] .....  52.000004: mm_page_alloc: page=00000000b1 pfn=0x1234 order=3 migratetype=0 """
    """gfp_flags=GFP_ATOMIC|__GFP_COMP
            sshd-812     [000] .....  52.000005: kfree: call_site=h+0x5/0x10 ptr=00000000f3
            sshd-812     [000] .....  52.000006: kfree: call_site=h+0x5/0x10 ptr=0000000000000000
            sshd-812     [000] .....  52.000007: kmalloc_node: call_site=f+0x5/0x10 ptr=00000000f8 bytes_req=64 """
    """bytes_alloc=64 gfp_flags=GFP_NOWAIT node=0 accounted=false
            sshd-812     [000] .....  52.000008: mm_page_free: page=00000000b1 pfn=0x1234 order=3
 perf  9 [002] 52.000009: kmem:kmem_cache_free: call_site=ffffffff81 ptr=0xf9 name=x
            sshd-812     [003] .....  52.000010: sched_switch: prev_comm=kfree: ptr=00000000f8
"""
)


def test_objects_are_paired_by_address() -> None:
    trace = convert_ftrace(RECORDING.splitlines())
    assert trace.cpu.tolist() == [1, 1, 0, 0, 0]
    assert trace.op.tolist() == [AllocOp.ALLOC, AllocOp.ALLOC, AllocOp.FREE, AllocOp.FREE, AllocOp.ALLOC]
    assert trace.number.tolist() == [0, 1, 0, 1, 2]
    assert trace.kind.tolist()[:2] == [AllocKind.KMALLOC, AllocKind.OBJECT]
    assert trace.size.tolist() == [500, 192, 500, 192, 64]
    assert trace.gfp[0] == parse_gfp("GFP_KERNEL|__GFP_ZERO")
    assert trace.meta["left_out"] == {"frees_of_older": 2, "frees_lost": 1, "failed": 0}


def test_frames_are_read_where_they_are_asked_for() -> None:
    trace = convert_ftrace(RECORDING.splitlines(), frames=True)
    assert trace.kind.tolist() == [AllocKind.FRAMES] * 2
    assert trace.size.tolist() == [3, 3]
    assert trace.op.tolist() == [AllocOp.ALLOC, AllocOp.FREE]


def test_a_failed_allocation_is_left_out() -> None:
    failed = (
        "x-1 [000] ..... 1.0: mm_page_alloc: page=0000000000000000 pfn=0x0 order=9 gfp_flags=GFP_ATOMIC\n"
    )
    assert convert_ftrace([failed, *RECORDING.splitlines()], frames=True).meta["left_out"]["failed"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x-1 [000] ..... 1.0: kmalloc: call_site=f ptr=00f3", "line 1: kmalloc without bytes_req="),
        ("x-1 [000] ..... 1.0: kfree: call_site=f", "line 1: kfree without ptr="),
        (
            "x-1 [000] ..... 1.0: kmalloc: ptr=00f3 bytes_req=8 gfp_flags=GFP_X",
            "line 1: kmalloc: 'GFP_X' is no GFP flag",
        ),
        ("nothing", "no allocation of the kmem events"),
    ],
)
def test_a_recording_that_is_wrong_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_ftrace([line])


def test_the_command_writes_a_trace_or_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kmem.txt").write_text(RECORDING)
    assert main([str(tmp_path / "kmem.txt"), str(tmp_path / "a.npz")]) == 0
    assert load_alloc_trace(tmp_path / "a.npz").nr_events == 5
    assert "5 events, 3 allocations on CPUs [0, 1]" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text(HEAD)
    for recording, message in (("empty.txt", "no allocation"), ("absent.txt", "No such file")):
        assert main([str(tmp_path / recording), str(tmp_path / "b.npz")]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not (tmp_path / "b.npz").exists()
