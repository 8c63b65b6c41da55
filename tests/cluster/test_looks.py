"""Looks in the run directory: what a finished run wrote and an interrupted one saved is read back."""

from pathlib import Path

import pytest

from cluster.errors import InputError
from cluster.looks import MEMORY, PROC, read_pictures, read_proc, write_looks
from shared.look import Look, MemoryPicture, PicturedZone, Use, encode_look

NAMES = ["a", "b"]


def look(text: str, uses: tuple[Use, ...]) -> Look:
    zones = (PicturedZone(0, "DMA", 0, len(uses)),)
    return Look(
        {"/proc/buddyinfo": text, "/proc/vmstat": text * 2}, MemoryPicture(0, zones, bytes(uses), bytes(2))
    )


FIRST = look("first\n", (Use.FREE, Use.USER))
SECOND = look("second\n", (Use.USER, Use.USER))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    packed = [(1, 0, encode_look(FIRST)), (5, 0, encode_look(SECOND)), (5, 1, encode_look(Look()))]
    write_looks(tmp_path, NAMES, packed)
    return tmp_path


def test_what_was_written_is_read_back_by_time(run: Path) -> None:
    assert read_proc(run, NAMES, "a") == {
        "/proc/buddyinfo": {1: "first\n", 5: "second\n"},
        "/proc/vmstat": {1: "first\nfirst\n", 5: "second\nsecond\n"},
    }
    assert list(read_pictures(run, NAMES, "a").items()) == [(1, FIRST.picture), (5, SECOND.picture)]


def test_a_machine_that_shows_nothing_has_nothing(run: Path) -> None:
    assert read_proc(run, NAMES, "b") == {}
    assert read_pictures(run, NAMES, "b") == {}


@pytest.mark.parametrize("file", [PROC, MEMORY])
def test_a_damaged_file_is_named_in_one_line(run: Path, file: str) -> None:
    (run / file).write_bytes(b"PAR1 and nothing else")
    read = read_proc if file == PROC else read_pictures
    with pytest.raises(InputError, match=f"{file}: damaged: [^\n]*$"):
        read(run, NAMES, "a")
