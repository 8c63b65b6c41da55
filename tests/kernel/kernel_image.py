"""Debian's kernel, as its package has it: downloaded and unpacked into a cache folder, never installed.

The goldens under tests/golden were recorded on ``linux-image-6.1.0-56-amd64``. If Debian 12 no longer has that
package, the one that linux-image-amd64 depends on is taken, and the recording says which. PAGEFLEET_KERNEL names
another package, of 6.1.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kernel.errors import RecordError

GOLDENS_PACKAGE: Final = "linux-image-6.1.0-56-amd64"
METAPACKAGE: Final = "linux-image-amd64"
CACHE: Final = Path("~/.cache/pagefleet/kernel")
# Of a kernel's 400 MB of modules, those that a disk may need; the others are not kept.
KEPT: Final = (
    "drivers/virtio/",
    "drivers/block/virtio_blk.ko",
    "fs/ext4/",
    "fs/jbd2/",
    "fs/mbcache.ko",
    "crypto/",
    "lib/",
)
DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")  # of a module's .modinfo section


@dataclass(frozen=True, slots=True)
class KernelImage:
    """An unpacked kernel."""

    image: Path  # what QEMU boots
    modules: Path  # folder with the modules, in folders

    def with_needed(self, *names: str) -> list[Path]:
        """Return the files of modules and of those that they need, each behind those."""
        found: list[Path] = []
        for name in names:
            self._add(name, found)
        return found

    def _add(self, name: str, found: list[Path]) -> None:
        # A file's name may have hyphens where the module's has underscores.
        pattern = re.sub("[-_]", "[-_]", name)
        paths = sorted(self.modules.rglob(f"{pattern}.ko"))
        if not paths:
            raise RecordError(f"{self.modules}: there is no module {name}")
        if paths[0] in found:
            return
        match = DEPENDS.search(paths[0].read_bytes())
        for needed in (match[1].decode() if match else "").split(","):
            if needed:
                self._add(needed, found)
        found.append(paths[0])


def kernel_image(cache: Path | None = None) -> KernelImage:
    """Return the kernel, downloading it where the cache lacks it. Raises ``RecordError`` if it cannot be had."""
    folder = (cache or CACHE).expanduser()
    wanted = os.environ.get("PAGEFLEET_KERNEL")
    for package in [wanted] if wanted else [GOLDENS_PACKAGE]:
        if (folder / package / "boot").is_dir():
            return _unpacked(folder / package)
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise RecordError(f"the kernel cannot be downloaded: there is no {tool}")
    package = wanted or (GOLDENS_PACKAGE if _is_known(GOLDENS_PACKAGE) else _current_package())
    if not (folder / package / "boot").is_dir():
        _download(package, folder)
    return _unpacked(folder / package)


def _unpacked(folder: Path) -> KernelImage:
    images = sorted((folder / "boot").glob("vmlinuz-*"))
    modules = sorted((folder / "lib" / "modules").glob("*"))
    if not images or not modules:
        raise RecordError(f"{folder}: there is no kernel; remove the folder to have it downloaded again")
    return KernelImage(images[0], modules[0])


def _is_known(package: str) -> bool:
    done = subprocess.run(["apt-cache", "show", package], capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


def _current_package() -> str:
    done = subprocess.run(["apt-cache", "depends", METAPACKAGE], capture_output=True, text=True, check=False)
    match = re.search(r"Depends: (linux-image-6\.1\.\S+)", done.stdout)
    if match is None:
        raise RecordError(
            f"the kernel cannot be downloaded: apt knows no {METAPACKAGE} of 6.1 (apt-get update?)"
        )
    return match[1]


def _download(package: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        done = subprocess.run(
            ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package],
            cwd=temporary,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(temporary).glob("*.deb"))
        if done.returncode or not archives:
            lines = done.stderr.strip().splitlines() or ["apt-get download gave nothing"]
            raise RecordError(f"{package} cannot be downloaded: {lines[-1]} (apt-get update?)")
        unpacked = Path(temporary) / "unpacked"
        done = subprocess.run(
            ["dpkg-deb", "-x", str(archives[0]), str(unpacked)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RecordError(f"{package} cannot be unpacked: {done.stderr.strip()}")
        for root in unpacked.glob("lib/modules/*/kernel"):
            for module in root.rglob("*.ko"):
                if not str(module.relative_to(root)).startswith(KEPT):
                    module.unlink()
        # Another recorder may have been quicker; its copy is as good.
        if not (folder / package).exists():
            unpacked.rename(folder / package)
