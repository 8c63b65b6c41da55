"""Making a trace of lackey's output: windows, runs, straddling accesses, and what is refused."""

from pathlib import Path

import pytest

from scenarios.traces import main
from shared.trace_kind import TraceKind
from shared.traces import Trace, load_trace

HEAD = "==7== Lackey, an example Valgrind tool\n==7== Command: ls\n==7== \n"
ACCESSES = """\
I  0401ab70,3
I  0401ab73,5
 S 1fff000768,8
I  0401b770,1
 L 04222ffc,8
 M 0421c7cc,4
 L 0421c7cc,4
"""
TAIL = "==7== \n==7== Counted 0 calls to main()\n"


def convert(folder: Path, text: str, *options: str) -> int:
    (folder / "lackey.txt").write_text(text)
    return main([str(folder / "lackey.txt"), str(folder / "out.npz"), *options])


def runs(trace: Trace, window: int) -> list[tuple[int, int, int]]:
    found = trace.windows[window]
    pages = trace.pages[found.page].tolist()
    return list(zip(pages, found.count.tolist(), found.kind.tolist(), strict=True))


def test_accesses_become_runs_in_two_windows(tmp_path: Path) -> None:
    assert convert(tmp_path, HEAD + ACCESSES + TAIL, "--first", "3", "--skip", "3", "--program", "ls -l") == 0
    trace = load_trace(tmp_path / "out.npz")
    assert runs(trace, 0) == [(0x401A, 2, TraceKind.FETCH), (0x1FFF000, 1, TraceKind.STORE)]
    assert runs(trace, 1) == [
        (0x401B, 1, TraceKind.FETCH),
        (0x4222, 1, TraceKind.LOAD),
        (0x4223, 1, TraceKind.LOAD),
        (0x421C, 1, TraceKind.MODIFY),
        (0x421C, 1, TraceKind.LOAD),
    ]
    assert trace.meta == {"window1_skip": 3, "name": "out", "program": "ls -l"}


def test_a_window_ends_after_its_accesses(tmp_path: Path) -> None:
    text = ACCESSES + "what stands behind is not looked at\n"
    assert convert(tmp_path, text, "--first", "1", "--skip", "1", "--steady", "2") == 0
    trace = load_trace(tmp_path / "out.npz")
    assert runs(trace, 0) == [(0x401A, 1, TraceKind.FETCH)]
    assert runs(trace, 1) == [(0x401A, 1, TraceKind.FETCH), (0x1FFF000, 1, TraceKind.STORE)]


def test_windows_may_overlap(tmp_path: Path) -> None:
    assert convert(tmp_path, ACCESSES, "--skip", "0") == 0
    trace = load_trace(tmp_path / "out.npz")
    assert runs(trace, 0) == runs(trace, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ACCESSES, "7 accesses are too few: window 1 begins behind 10000000 (--skip)"),
        (HEAD, "0 accesses are too few: window 1 begins behind 10000000 (--skip)"),
        (HEAD + "hello\n", "line 4: 'hello' is no access that lackey records"),
        ("I  0401ab70\n", "line 1: 'I  0401ab70' is not ADDRESS,BYTES"),
        (" L xyz,8\n", "line 1: 'L xyz,8' is not ADDRESS,BYTES"),
        (" L 0100,8\n", "line 1: 'L 0100,8' is outside user space"),
        (" L ffff888000000000,8\n", "line 1: 'L ffff888000000000,8' is outside user space"),
        (" L 04222cac,0\n", "line 1: 'L 04222cac,0' is not ADDRESS,BYTES"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    assert convert(tmp_path, text) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'lackey.txt'}: {expected}\n"
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("option", ["--first", "--steady"])
@pytest.mark.parametrize("value", ["0", "17M"])
def test_a_window_has_a_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        convert(tmp_path, ACCESSES, option, value)
    assert caught.value.code == 2
    assert "is outside 1..16777216" in capsys.readouterr().err


def test_a_missing_recording_and_a_missing_folder_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.txt"), str(tmp_path / "out.npz")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'absent.txt'}: No such file or directory\n"
    (tmp_path / "lackey.txt").write_text(ACCESSES)
    assert main([str(tmp_path / "lackey.txt"), str(tmp_path / "no" / "out.npz"), "--skip", "0"]) == 2
    assert "No such file or directory" in capsys.readouterr().err
