"""Compile kernels before anything needs them: in a process of its own, since ``cluster`` has no numba.

``python -m node.warm`` compiles what its cache does not hold, in parallel, and reports its progress on
stderr. It runs while Ray starts; actors are asked to build members only when it is done, so that no
two of them compile the same kernel.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.errors import InputError
from cluster.machine_server import NODE_BUILDER


@contextmanager
def warming_kernels(builder: str) -> Iterator[None]:
    """Compile while the block runs, if members of this builder have kernels; all is compiled at its end.

    Raises ``InputError`` if the compilation failed: nothing can run.
    """
    if builder != NODE_BUILDER or os.environ.get("NUMBA_DISABLE_JIT") == "1":
        yield
        return
    warming = subprocess.Popen([sys.executable, "-m", "node.warm"], stdout=sys.stderr)
    try:
        yield
        status = warming.wait()
    finally:
        warming.terminate()  # nothing happens if it has ended
        warming.wait()
    if status != 0:
        raise InputError(f"the kernels could not be compiled: python -m node.warm ended with {status}")
