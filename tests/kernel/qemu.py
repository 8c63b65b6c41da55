"""One boot of a machine in QEMU: software emulation, so that it needs nothing of the host and is the same on any.

The kernel's messages come over the first serial line, what the driver noted over the second.
"""

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.kernel.errors import BootError, RecordError

QEMU: Final = "qemu-system-x86_64"
COMMAND_LINE: Final = "console=ttyS0 loglevel=4 panic=-1 nokaslr norandmaps no_timer_check rootfstype=ramfs"
MESSAGE_CHARACTERS: Final = 160


@dataclass(frozen=True, slots=True)
class BootSpec:
    """What to boot."""

    kernel: Path
    initramfs: Path
    memory: str = "512M"
    cpus: int = 1
    cpu_model: str = "qemu64"
    extra_command_line: str = ""
    icount: str = ""
    disks: tuple[Path, ...] = field(default=())
    timeout_s: int = 150

    @property
    def command_line(self) -> str:
        """The kernel's command line."""
        return f"{COMMAND_LINE} {self.extra_command_line}".strip()


@dataclass(frozen=True, slots=True)
class Boot:
    """What a boot gave."""

    output: str  # what the driver noted
    console: str  # the kernel's messages
    wall_s: float


def arguments(spec: BootSpec, console: Path, output: Path) -> list[str]:
    """Return QEMU's command."""
    command = [QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg"]
    command += ["-cpu", spec.cpu_model, "-smp", str(spec.cpus), "-m", spec.memory]
    command += ["-kernel", str(spec.kernel), "-initrd", str(spec.initramfs), "-append", spec.command_line]
    command += ["-serial", f"file:{console}", "-serial", f"file:{output}"]
    if spec.icount:
        command += ["-icount", spec.icount]
    for disk in spec.disks:
        # What a run writes to a disk goes to a file that is gone after it.
        command += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
    return command


def boot(spec: BootSpec, folder: Path) -> Boot:
    """Boot, wait until the machine is off, and return what it wrote.

    Raises ``RecordError`` without QEMU, ``BootError`` if the machine is not off in time.
    """
    if shutil.which(QEMU) is None:
        raise RecordError(f"there is no {QEMU}: apt-get install qemu-system-x86")
    console, output = folder / "console.txt", folder / "output.txt"
    for path in (console, output):
        path.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            arguments(spec, console, output),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=spec.timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise BootError(
            f"the machine was not off after {spec.timeout_s} s; its last message: {last_message(_read(console))}"
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BootError(f"{QEMU}: {lines[-1]}")
    return Boot(_read(output), _read(console), time.monotonic() - began)


def last_message(console: str) -> str:
    """Return the last line that the kernel wrote."""
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    return lines[-1][:MESSAGE_CHARACTERS] if lines else "none"


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
