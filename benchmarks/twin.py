"""The C twins, compiled on the spot: the limit that the kernels are measured against."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.layout import header
from node.state import State
from shared.kernel_state import state_pointer

SOURCES: Final = Path(__file__).parent / "c"
# As numba has it: signed sums wrap.
FLAGS: Final = ("-O3", "-fwrapv", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wno-unused-function")


class NoCompilerError(Exception):
    """There is no gcc."""


class Twins:
    """The functions of benchmarks/c/twins.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def call(self, name: str, state: State, *ints: int) -> int:
        """Call the twin of the entry ``name``."""
        function = self._library[name]
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_int64] * (1 + len(ints))
        return int(function(state_pointer(state), *ints))


def find_gcc() -> str:
    """Return where gcc is. Raises NoCompilerError if it is not installed."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise NoCompilerError
    return gcc


def compile_twins() -> Twins:
    """Compile and load the twins. Raises NoCompilerError without gcc; gcc's own errors go to stderr."""
    gcc = find_gcc()
    with tempfile.TemporaryDirectory(prefix="pagefleet-twins-") as folder:
        (Path(folder) / "layout.h").write_text(header())
        library = Path(folder) / "twins.so"
        command = [
            gcc,
            *FLAGS,
            "-I",
            folder,
            "-I",
            str(SOURCES),
            str(SOURCES / "twins.c"),
            "-o",
            str(library),
        ]
        subprocess.run(command, check=True)
        return Twins(ctypes.CDLL(str(library)))
