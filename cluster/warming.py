"""Compile kernels before anything needs them: in a process of its own, since ``cluster`` has no numba.

``python -m node.warm`` compiles what its cache does not hold, in parallel, and reports its progress on
stderr. It runs while Ray starts; actors are asked to build members only when it is done, so that no
two of them compile the same kernel.
"""

import os
import subprocess
import sys

from cluster.errors import InputError
from cluster.machine_server import NODE_BUILDER


def begin_warming(builder: str) -> "subprocess.Popen[str] | None":
    """Begin to compile, if members of this builder have kernels that are compiled."""
    if builder != NODE_BUILDER or os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return None
    return subprocess.Popen([sys.executable, "-m", "node.warm"], stdout=sys.stderr, text=True)


def end_warming(warming: "subprocess.Popen[str] | None") -> None:
    """Wait for the compilation. Raises ``InputError`` if it failed: nothing can run."""
    if warming is not None and warming.wait() != 0:
        command = f"python -m node.warm ended with {warming.returncode}"
        raise InputError(f"the kernels could not be compiled: {command}")
