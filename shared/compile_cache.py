"""Where compiled kernels are kept, and how every edit that matters is noticed.

numba's disk cache knows a function by the text of its own file. It does not notice when a constant or a
callee in another file changes, nor a compiler switch, and then it runs the old machine code; and it
throws away everything when a comment changes. Here a *unit* (one file that has entries, with all that it
imports from this repository) has a digest of what its machine code is made of:

    unit digest = versions, switches, and the syntax trees, without docstrings and comments, of
                  the unit's file and the files it imports, and theirs, and so on

The digest names the unit's folder in the cache. Imports under ``TYPE_CHECKING`` do not count. Of a file of
declarations (``DECLARATIONS``) only the names imported count: what an entry in another room does inside is
no part of its caller's machine code. The layout of the state is part of numba's own key, through the name
of ``StateType``.
"""

import ast
import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

ROOT: Final = Path(__file__).resolve().parent.parent
DECLARATIONS: Final = frozenset({"node.joints"})
_PACKAGES: Final = ("node", "shared", "scenarios", "benchmarks", "tests")
_KEEP_OLD_DIGESTS_S: Final = 30 * 24 * 3600


def cache_home() -> Path:
    """Return the folder of all compiled units: $PAGEFLEET_CACHE_DIR, or ~/.cache/pagefleet."""
    return Path(os.environ.get("PAGEFLEET_CACHE_DIR") or Path.home() / ".cache" / "pagefleet")


class _Normalised(ast.NodeTransformer):
    """Drops what never reaches machine code: docstrings and imports for the type checker."""

    def _body_without_docstring(self, node: Any) -> Any:
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]
        return self.generic_visit(node)

    visit_Module = visit_FunctionDef = visit_ClassDef = _body_without_docstring  # noqa: N815

    def visit_If(self, node: ast.If) -> Any:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


@functools.cache
def _tree(path: Path) -> ast.Module:
    tree = _Normalised().visit(ast.parse(path.read_text()))
    assert isinstance(tree, ast.Module)
    return tree


def _file_of(module: str) -> Path | None:
    if module.split(".")[0] not in _PACKAGES:
        return None
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    return path if path.exists() else None


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for everything that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""


def unit_files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files whose code is part of a unit, sorted, and the names it imports from declarations."""
    found: set[Path] = set()
    declared: set[str] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for module, name in _imports(_tree(file)):
            if module in DECLARATIONS:
                declared.add(f"{module}.{name}")
                continue
            for candidate in (_file_of(module), _file_of(f"{module}.{name}")):
                if candidate is not None:
                    waiting.append(candidate)
    return sorted(found), sorted(declared)


@functools.cache
def unit_digest(path: Path, switches: str) -> str:
    """Return 16 hex digits of everything that the machine code of the unit at ``path`` is made of."""
    files, declared = unit_files(path)
    digest = hashlib.sha256(f"{numba.__version__} {switches} {declared}".encode())
    for file in files:
        digest.update(f"{file.name}:{ast.dump(_tree(file))}".encode())
    return digest.hexdigest()[:16]


class _UnitLocator(_CacheLocator):  # type: ignore[misc]
    """Puts a unit's machine code into the folder that its digest names."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.unit = ".".join(path.relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else path.stem
        self.digest = unit_digest(path, compiler_switches())
        self.folder = cache_home() / f"{self.unit}-{self.digest}"

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


class _UnitCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_UnitLocator,)


class UnitCache(FunctionCache):  # type: ignore[misc]
    """numba's function cache, kept in the folder of the function's unit."""

    _impl_class = _UnitCacheImpl


def compiler_switches() -> str:
    """Return what changes machine code besides the source, as text."""
    return f"bounds={numba.config.BOUNDSCHECK} opt={numba.config.OPT} wrappers={os.environ.get('PAGEFLEET_WRAPPERS', '')}"
