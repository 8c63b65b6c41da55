"""The initramfs's archive, read back by the tool that defines the format."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernel.initramfs import cpio_archive

FILES = {"init": b"\x7fELF", "modules/a.ko": b"12345", "modules/b.ko": b"", "script": b"0 - begin\n"}


def read_back(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a newc archive: name to mode and data."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + i * 8 : at + 14 + i * 8], 16) for i in range(13)]
        mode, size, name_length = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_length - 1].decode()
        data = at + (110 + name_length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, archive[data : data + size])
        at = data + (size + 3) // 4 * 4


def test_files_come_back_with_their_modes_behind_their_folders() -> None:
    entries = read_back(cpio_archive(FILES, frozenset({"init"})))
    assert entries == {
        "init": (0o100755, b"\x7fELF"),
        "modules": (0o040755, b""),
        "modules/a.ko": (0o100644, b"12345"),
        "modules/b.ko": (0o100644, b""),
        "script": (0o100644, b"0 - begin\n"),
    }
    assert list(entries).index("modules") < list(entries).index("modules/a.ko")


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_unpacks_it(tmp_path: Path) -> None:
    subprocess.run(
        ["cpio", "--extract", "--make-directories", "--quiet"],
        input=cpio_archive(FILES),
        cwd=tmp_path,
        check=True,
    )
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
