"""The disks of a machine that has some: files of random bytes on ext4, and swap space."""

import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

from shared.constants import MIB, PAGE_SIZE
from tests.kernel.errors import RecordError

FILES_MIB: Final = {
    "f4": 4,
    "f16": 16,
    "f32": 32,
    "f64": 64,
    "f96": 96,
    "f128": 128,
    "g16": 16,
    "g64": 64,
    "s1": 1,
}
DATA_DISK_MIB: Final = 768
MKE2FS: Final = "/sbin/mke2fs"
SEED: Final = 6
SWAP_SIGNATURE: Final = b"SWAPSPACE2"  # include/linux/swap.h, union swap_header
SWAP_INFO_OFFSET: Final = 1024


def data_disk(cache: Path) -> Path:
    """Return an image with the files, made once: ext4 without journal, blocks of 4 KiB."""
    image = cache.expanduser() / "data.ext4"
    if image.exists():
        return image
    program = shutil.which("mke2fs") or MKE2FS
    if not Path(program).exists():
        raise RecordError("there is no mke2fs for the data disk: apt-get install e2fsprogs")
    folder = cache.expanduser() / "data"
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(SEED)  # noqa: S311 (contents of test files)
    for name, size in FILES_MIB.items():
        (folder / name).write_bytes(generator.randbytes(size * MIB))
    made = image.with_suffix(".made")
    command = [program, "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", str(PAGE_SIZE)]
    done = subprocess.run(
        [*command, "-d", str(folder), str(made), f"{DATA_DISK_MIB}M"],
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(folder)
    if done.returncode:
        raise RecordError(f"mke2fs: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    made.rename(image)
    return image


def swap_disk(path: Path, nr_bytes: int) -> Path:
    """Write an empty swap space."""
    header = bytearray(PAGE_SIZE)
    struct.pack_into("<III", header, SWAP_INFO_OFFSET, 1, nr_bytes // PAGE_SIZE - 1, 0)
    header[PAGE_SIZE - len(SWAP_SIGNATURE) :] = SWAP_SIGNATURE
    with path.open("wb") as file:
        file.write(header)
        file.truncate(nr_bytes)
    return path
