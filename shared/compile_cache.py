"""Where compiled kernels are kept: one folder a unit, named by the unit's digest (shared/unit_digest.py).

numba's disk cache knows a function by the text of its own file. It does not notice when a constant or a
callee in another file changes, nor a compiler switch, and then it runs the old machine code; and it
throws away everything when a comment changes. So it is only used to store: which folder it stores to, and
reads from, says the digest. The layout of the state is part of numba's own key, through the name of
``StateType``, and so is the processor.
"""

import shutil
import time
from pathlib import Path
from typing import Any, Final

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from shared.unit_digest import ROOT, cache_home, unit_digest

_KEEP_OLD_DIGESTS_S: Final = 30 * 24 * 3600


def folder_of(path: Path) -> Path:
    """Return the folder that the machine code of the unit at ``path`` is kept in."""
    unit = ".".join(path.relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else path.stem
    return cache_home() / f"{unit}-{unit_digest(path, compiler_switches())}"


class _UnitLocator(_CacheLocator):
    """Puts a unit's machine code into the folder that its digest names."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.folder = folder_of(path)
        self.unit, _, self.digest = self.folder.name.rpartition("-")

    def get_cache_path(self) -> str:
        return str(self.folder)

    def ensure_cache_path(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.remove_forgotten()

    def remove_forgotten(self) -> None:
        """Remove this unit's folders of other digests that nobody has written to for a month."""
        for other in cache_home().glob(f"{self.unit}-*"):
            try:
                if other != self.folder and time.time() - other.stat().st_mtime > _KEEP_OLD_DIGESTS_S:
                    shutil.rmtree(other, ignore_errors=True)
            except FileNotFoundError:  # another process was faster
                continue

    def get_source_stamp(self) -> str:
        return self.digest

    def get_disambiguator(self) -> str:
        return self.name

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_UnitLocator":
        return cls(Path(py_file).resolve(), py_func.__name__)


class _UnitCacheImpl(CompileResultCacheImpl):
    _locator_classes = (_UnitLocator,)


class UnitCache(FunctionCache):
    """numba's function cache, kept in the folder of the function's unit."""

    _impl_class = _UnitCacheImpl


def compiler_switches() -> str:
    """Return what changes machine code besides the source, as text."""
    return f"numba={numba.__version__} bounds={numba.config.BOUNDSCHECK} opt={numba.config.OPT}"
