"""What a benchmark is, and the list of all.

A suite is a module of this package with ``BENCHMARKS``; ``__main__`` names the suites. To add one: write the
batch in kernels.py, its twin in c/, and a ``Benchmark``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from node.state import State


def _nothing(_state: State) -> None:
    pass


@dataclass(frozen=True)
class Benchmark:
    """One operation, run by an entry and by its C twin of the same name over two equal states.

    ``entry(state, *arguments)`` does ``operations`` of them. ``before`` and ``after`` prepare and clear away,
    outside the time that is measured; the states must be equal again then, and are compared.

    ``own_kernel`` is what c/own_kernel.c calls the same thing done by this machine's own kernel, if it does it.
    """

    name: str
    operations: int
    target_per_s: float
    prepare: Callable[[], State]
    entry: Callable[..., int]
    arguments: Callable[[State], tuple[int, ...]]
    before: Callable[[State], None] = _nothing
    after: Callable[[State], None] = _nothing
    own_kernel: str = ""
