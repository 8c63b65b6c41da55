"""Recorded images: read as they were recorded, and each way to be wrong refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.constants import NS_PER_S
from shared.images import HostState, PageClass, check_image, load_image
from tests.models.recorded_image import columns_of, write_image

DATA = Path(__file__).resolve().parent.parent.parent / "scenarios" / "data"
IMAGES = sorted(DATA.glob("*.npz"))
IDS = [[1, 2, 0], [1, 0, 2]]


def test_an_image_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    classes = [[PageClass.ANON, PageClass.FILE, PageClass.FREE]] * 2
    state = [[HostState.THP, HostState.SMALL, HostState.ABSENT], [HostState.THP] * 3]
    image = load_image(write_image(tmp_path / "a.npz", columns_of(IDS, classes=classes, host_state=state)))
    assert (image.nr_snapshots, image.nr_pages) == (2, 3)
    assert image.ids.tolist() == IDS
    assert image.page_class.tolist() == classes
    assert image.host_state.tolist() == state
    assert image.content_ids.tolist() == [0, 1007, 2007]
    assert image.contents(1).tolist() == [1007, 0, 2007]
    assert image.content_jhash2.tolist() == [0, 1, 2]
    assert image.time_ns.tolist() == [5 * NS_PER_S, 10 * NS_PER_S]
    assert image.meta["name"] == "test"


def test_a_hash_with_its_highest_bit_is_a_negative_content_id(tmp_path: Path) -> None:
    hashes = np.array([0, (1 << 64) - 1, 1 << 63], np.uint64)
    image = load_image(write_image(tmp_path / "a.npz", columns_of(IDS) | {"content_hash64": hashes}))
    assert image.content_ids.tolist() == [0, -1, -(1 << 63)]


def test_without_times_in_its_meta_the_recorders_clock_counts(tmp_path: Path) -> None:
    columns = columns_of(IDS) | {"meta": np.array("{}"), "t_start": np.array([100.25, 107.75])}
    image = load_image(write_image(tmp_path / "a.npz", columns))
    assert image.time_ns.tolist() == [5 * NS_PER_S, 12 * NS_PER_S + NS_PER_S // 2]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_every_recorded_image_is_whole(path: Path) -> None:
    image = load_image(path)
    assert check_image(path) == image.nr_pages == image.meta["ram_mib"] * 256
    assert image.meta["name"] == path.stem
    assert image.content_ids[0] == 0
    assert image.ids.max() == len(image.content_ids) - 1
    assert (image.time_ns // NS_PER_S).tolist() == [5, 10, 20, 40, 80, 140]
    assert not image.ids[image.host_state == HostState.ABSENT].any()


def test_all_nine_images_are_there() -> None:
    names = "gcc-a idle-a idle-b nginx-a nginx-b postgres-a python-a python-b redis-a"
    assert [path.stem for path in IMAGES] == names.split()


def meta_of(**values: Any) -> dict[str, Any]:
    return {"meta": np.array(json.dumps(values))}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"content_jhash2": None}, "column content_jhash2 is missing"),
        ({"meta": None}, "column meta is missing"),
        ({"ids_delta": np.zeros((2, 3), np.int64)}, "column ids_delta is int64, not int32"),
        ({"content_hash64": np.zeros(3, ">u8")}, "column content_hash64 is >u8, not uint64"),
        ({"ids_delta": np.zeros(6, np.int32)}, "column ids_delta has 1 axes, not 2"),
        ({"host_state": np.zeros((2, 4), np.uint8)}, "column host_state has 4 entries where others have 3"),
        ({"content_lz4": np.zeros(2, np.uint16)}, "column content_lz4 has 2 entries where others have 3"),
        ({"t_start": np.array([], np.float64)}, "column t_start has 0 entries where others have 2"),
        ({"flag_values": np.zeros(300, np.uint64)}, "column flag_values: 300 is outside 1..256"),
        ({"ids_delta": np.full((2, 3), 7, np.int32)}, "column ids_delta refers to 7..28, outside 0..2"),
        ({"ids_delta": np.full((2, 3), -1, np.int32)}, "column ids_delta refers to -4..-1, outside 0..2"),
        ({"flag_idx": np.full((2, 3), 99, np.uint8)}, "column flag_idx refers to 99..99, outside 0..10"),
        ({"flag_class": np.full(11, 99, np.uint8)}, "column flag_class refers to 99..99, outside 0..10"),
        ({"host_state": np.full((2, 3), 6, np.uint8)}, "column host_state refers to 6..6, outside 0..5"),
        (
            {"host_state": np.array([[2, 0, 2], [2, 2, 2]], np.uint8)},
            "column host_state: page 1 of snapshot 0 is absent but not zero",
        ),
        (
            {"content_hash64": np.array([0, 255, 255], np.uint64)},
            "column content_hash64: 0xff stands for two contents",
        ),
        ({"t_start": np.array([4.0, 1.5])}, "column t_start: the times of the snapshots do not rise"),
        ({"t_start": np.array([1.0, np.nan])}, "column t_start: the times of the snapshots do not rise"),
        (
            meta_of() | {"t_start": np.array([0.0, 1e6])},
            "column t_start: 1000005 s is above the limit of 86400 s",
        ),
        (
            meta_of(snapshots_at_s_after_ready=[10, 5]),
            "column meta: snapshots_at_s_after_ready is not 2 rising times in seconds",
        ),
        (
            meta_of(snapshots_at_s_after_ready=[5]),
            "column meta: snapshots_at_s_after_ready is not 2 rising times in seconds",
        ),
        ({"meta": np.array("{")}, "column meta is not JSON ("),
        ({"meta": np.array("[]")}, "column meta is not a JSON object"),
        ({"meta": np.array(["{}"])}, "column meta is <U2[1], not one text"),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    columns = {name: column for name, column in (columns_of(IDS) | change).items() if column is not None}
    path = write_image(tmp_path / "wrong.npz", columns)
    with pytest.raises(ValueError, match=r"^\S+wrong\.npz: column [^\n]+$") as caught:
        check_image(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def altered(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def replaced(by: bytes) -> Callable[[bytes], bytes]:
    return lambda _data: by


@pytest.mark.parametrize(
    "damage", [cut, altered, replaced(b""), replaced(b"PK\x03\x04"), replaced(b"just text\n" * 99)]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "damaged.npz"
    path.write_bytes(damage(IMAGES[0].read_bytes()))
    with pytest.raises(ValueError, match=r"^\S+damaged\.npz: not a whole \.npz file \([^\n]+\)$"):
        check_image(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.npz: No such file or directory"):
        check_image(tmp_path / "absent.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    columns = columns_of(IDS) | {"t_start": np.array([Bomb(), Bomb()], dtype=object)}
    path = write_image(tmp_path / "bomb.npz", columns)
    with pytest.raises(ValueError, match="column t_start is object, not float64"):
        check_image(path)
    assert not (tmp_path / "exploded").exists()
