"""An initramfs: files in a cpio archive of the "newc" format, as the kernel unpacks it into its root.

    070701 + 13 numbers of 8 hex digits | name, NUL, padded to 4 | data, padded to 4 |  ...  | TRAILER!!!

Linux: Documentation/driver-api/early-userspace/buffer-format.rst, init/initramfs.c.
"""

from collections.abc import Mapping
from typing import Final

MAGIC: Final = b"070701"
TRAILER: Final = "TRAILER!!!"
FOLDER: Final = 0o040755
PROGRAM: Final = 0o100755
PLAIN_FILE: Final = 0o100644


def cpio_archive(files: Mapping[str, bytes], programs: frozenset[str] = frozenset()) -> bytes:
    """Return an archive of files by name (no leading slash), with the folders that their names need."""
    entries: dict[str, tuple[int, bytes]] = {}
    for name, data in files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            entries.setdefault("/".join(parts[:depth]), (FOLDER, b""))
        entries[name] = (PROGRAM if name in programs else PLAIN_FILE, data)
    records = [_record(i, name, mode, data) for i, (name, (mode, data)) in enumerate(entries.items(), 1)]
    return b"".join(records) + _record(0, TRAILER, 0, b"")


def _record(inode: int, name: str, mode: int, data: bytes) -> bytes:
    name_bytes = name.encode() + b"\0"
    links = 1 if mode else 0
    # inode, mode, uid, gid, links, mtime, size, device of the file (2), device that it is (2), name, checksum
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name_bytes), 0)
    header = MAGIC + b"".join(b"%08X" % value for value in fields)
    return _padded(header + name_bytes) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
