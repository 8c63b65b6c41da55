"""The driver, compiled: one static program."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.kernel.errors import RecordError

SOURCE: Final = Path(__file__).parent / "driver.c"
# Addresses and the layout of the stack are part of what is recorded, so nothing may depend on where gcc's
# defaults changed.
FLAGS: Final = (
    "-static",
    "-O2",
    "-fno-pie",
    "-no-pie",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-Wall",
)


def compile_driver(folder: Path, compiler: str = "gcc") -> bytes:
    """Return the program. Raises ``RecordError`` without a compiler or libc's static library."""
    if shutil.which(compiler) is None:
        raise RecordError(f"there is no {compiler}: apt-get install gcc libc6-dev")
    program = folder / "init"
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise RecordError(f"the driver cannot be compiled: {errors[0] if errors else compiler}")
    return program.read_bytes()
