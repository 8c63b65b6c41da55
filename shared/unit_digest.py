"""What the machine code of a unit is made of, so that every edit that matters is noticed. No numba here.

A *unit* is one file that has entries, with all that it imports from this repository:

    unit digest = versions, switches, and the syntax trees, without docstrings and comments, of
                  the unit's file and the files it imports, and theirs, and so on

Imports under ``TYPE_CHECKING`` do not count. Of a file of declarations (``DECLARATIONS``) only the names
imported count: what an entry in another room does inside is no part of its caller's machine code.
"""

import ast
import functools
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
DECLARATIONS: Final = frozenset({"node.joints"})
_PACKAGES: Final = ("node", "shared", "scenarios", "benchmarks", "tests")


def cache_home() -> Path:
    """Return the folder of all compiled units: $PAGEFLEET_CACHE_DIR, or ~/.cache/pagefleet."""
    return Path(os.environ.get("PAGEFLEET_CACHE_DIR") or Path.home() / ".cache" / "pagefleet")


class _Normalised(ast.NodeTransformer):
    """Drops what never reaches machine code: docstrings and imports for the type checker."""

    def _body_without_docstring(self, node: Any) -> Any:
        first = node.body[0] if node.body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            node.body = node.body[1:]
        return self.generic_visit(node)

    visit_Module = visit_FunctionDef = visit_ClassDef = _body_without_docstring  # noqa: N815

    def visit_If(self, node: ast.If) -> Any:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


def _file_of(module: str) -> Path | None:
    if module.split(".", maxsplit=1)[0] not in _PACKAGES:
        return None
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    return path if path.exists() else None


class _Source(NamedTuple):
    """What a file adds to the digests of the units that it is part of."""

    imports: tuple[tuple[str, str], ...]  # (module, name) of everything that it imports
    code: str  # hash of its syntax tree, without docstrings and comments


@functools.cache
def _source(path: Path) -> _Source:
    """Return what is in a file: parsed now, or by whoever saw the same text before.

    Parsing all files takes half a second, which every process that loads kernels would spend.
    """
    text = path.read_bytes()
    key = hashlib.sha256(b"%s %s %s" % (sys.version.encode(), _own_text(), text)).hexdigest()
    kept = cache_home() / "sources" / f"{key}.json"
    try:
        imports, code = json.loads(kept.read_text())
        return _Source(tuple((str(module), str(name)) for module, name in imports), str(code))
    except (OSError, ValueError, TypeError):
        found = _parse(text)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(found))
        new.replace(kept)
    except OSError:  # a cache that cannot be written to is no cache
        pass
    return found


@functools.cache
def _own_text() -> bytes:
    return Path(__file__).read_bytes()


def _parse(text: bytes) -> _Source:
    tree = _Normalised().visit(ast.parse(text))
    imports: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [(alias.name, "") for alias in node.names]
    return _Source(tuple(imports), hashlib.sha256(ast.dump(tree).encode()).hexdigest())


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
        for module, name in _source(file).imports:
            if module in DECLARATIONS:
                declared.add(f"{module}.{name}")
                continue
            candidates = (_file_of(module), _file_of(f"{module}.{name}"))
            waiting += [candidate for candidate in candidates if candidate is not None]
    return sorted(found), sorted(declared)


@functools.cache
def unit_digest(path: Path, switches: str) -> str:
    """Return 16 hex digits of everything that the machine code of the unit at ``path`` is made of.

    ``switches`` says what changes machine code besides the source: versions and compiler options.
    """
    files, declared = unit_files(path)
    digest = hashlib.sha256(f"{switches} {declared}".encode())
    for file in files:
        digest.update(f"{file.name}:{_source(file).code}".encode())
    return digest.hexdigest()[:16]
