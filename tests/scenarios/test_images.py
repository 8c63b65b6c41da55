from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios.images import PageClass, check_image, load_image

DATA = Path(__file__).resolve().parent.parent.parent / "scenarios" / "data"
IMAGES = sorted(DATA.glob("*.npz"))
PAGES = {256: 65536, 512: 131072}


def small(**changes: Any) -> dict[str, Any]:
    """Two snapshots of three pages: contents 1 2 0, then 1 0 2."""
    columns = {
        "content_hash64": np.array([0, 11, 22], np.uint64),
        "content_jhash2": np.zeros(3, np.uint32),
        "content_lz4": np.zeros(3, np.uint16),
        "content_zstd3": np.zeros(3, np.uint16),
        "content_lzo": np.zeros(3, np.uint16),
        "content_same8": np.zeros(3, np.uint8),
        "ids_delta": np.array([[1, 1, -2], [0, -2, 2]], np.int32),
        "flag_values": np.array([0, 1], np.uint64),
        "flag_class": np.array([1, 5], np.uint8),
        "flag_idx": np.array([[1, 0, 0], [1, 1, 0]], np.uint8),
        "host_state": np.array([[1, 2, 0], [1, 2, 3]], np.uint8),
        "t_start": np.array([1.5, 4.0]),
        "meta": np.array('{"name": "small"}'),
    }
    return {name: column for name, column in (columns | changes).items() if column is not None}


def test_an_image_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "small.npz", **small())
    image = load_image(tmp_path / "small.npz")
    assert image.ids.tolist() == [[1, 2, 0], [1, 0, 2]]
    assert image.page_class.tolist() == [[5, 1, 1], [5, 5, 1]]
    assert image.time_ns.tolist() == [0, 2_500_000_000]
    assert image.meta["name"] == "small"


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_every_recorded_image_is_whole(path: Path) -> None:
    image = load_image(path)
    assert check_image(path) == PAGES[image.meta["ram_mib"]]
    assert image.content_hash64[0] == 0
    assert image.ids.max() == len(image.content_hash64) - 1
    assert PageClass.ANON in image.page_class
    assert image.time_ns[0] == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"content_jhash2": None}, "column content_jhash2 is missing"),
        ({"ids_delta": np.zeros((2, 3), np.int64)}, "column ids_delta is int64, not int32"),
        ({"ids_delta": np.zeros(6, np.int32)}, "column ids_delta has 1 axes, not 2"),
        ({"host_state": np.zeros((2, 4), np.uint8)}, "column host_state has 4 entries where others have 3"),
        ({"content_lz4": np.zeros(2, np.uint16)}, "column content_lz4 has 2 entries where others have 3"),
        ({"ids_delta": np.full((2, 3), 7, np.int32)}, r"column ids_delta refers to 7..28, outside 0..2"),
        ({"flag_idx": np.full((2, 3), 9, np.uint8)}, r"column flag_idx refers to 9..9, outside 0..1"),
        ({"flag_class": np.array([1, 99], np.uint8)}, r"column flag_class refers to 1..99, outside 0..10"),
        ({"t_start": np.array([4.0, 1.5])}, "t_start: the times of the snapshots do not rise"),
        ({"t_start": np.array([], np.float64)}, "column t_start has 0 entries where others have 2"),
        ({"meta": np.array("{")}, "not an image"),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = tmp_path / "wrong.npz"
    np.savez_compressed(path, **small(**change))
    with pytest.raises(ValueError, match=expected) as caught:
        check_image(path)
    assert str(path) in str(caught.value)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def altered(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, altered, lambda _: b"", lambda _: b"PK\x03\x04", lambda _: b"text\n" * 99]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "damaged.npz"
    path.write_bytes(damage(IMAGES[0].read_bytes()))
    with pytest.raises(ValueError, match=r"damaged\.npz: ") as caught:
        check_image(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file or directory"):
        check_image(tmp_path / "absent.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **small(meta=np.array([Bomb()], dtype=object)))
    with pytest.raises(ValueError, match="not an image"):
        check_image(path)
    assert not (tmp_path / "exploded").exists()
