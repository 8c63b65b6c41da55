"""One seeded fault: a line of a kernel as it stands, what stands there instead, and the command that must see it."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GOLDENS: Final = "tests/golden"


@dataclass(frozen=True, slots=True)
class Killer:
    """A command that must turn red: Python's arguments, and how a table calls it."""

    shown: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A change of one line, which stands exactly once in one function of one file."""

    name: str
    file: str
    function: str
    line: str  # without its indentation, which stays
    faulty: str
    killer: Killer


class StaleFaultError(ValueError):
    """The source is no more what the list says."""


def check(case: str) -> Killer:
    """Return the killer that compares a recorded case with its golden."""
    return Killer(f"check {case}", ("-m", "cluster", "check", f"{GOLDENS}/{case}.json.gz"))


def suite(file: str, *names: str) -> Killer:
    """Return the killer that runs tests of a file, by their names, or all of them; it stops at the first failure."""
    path = f"tests/{file}"
    nodes = [f"{path}::{name}" for name in names] or [path]
    quick = ("-q", "-x", "-p", "no:cacheprovider", "-p", "tests.mutation.unshrunk")
    return Killer(path, ("-m", "pytest", *quick, *nodes))


def seeded(fault: Fault, root: Path) -> str:
    """Return the text of the fault's file with the fault in it.

    Raises ``StaleFaultError`` if the line is not there exactly once, or if the faulty one is no Python or has names
    that the file has not: it would be a mistake in the list that turned the killer red.
    """
    where = f"{fault.name}: {fault.file}: {fault.function}"
    try:
        text = (root / fault.file).read_text()
        tree = ast.parse(text)
    except (OSError, SyntaxError) as error:
        raise StaleFaultError(f"{where}: {error}") from None
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == fault.function
    ]
    if len(functions) != 1:
        raise StaleFaultError(f"{where}: {len(functions)} functions of this name")
    lines = text.splitlines(keepends=True)
    last = functions[0].end_lineno or functions[0].lineno
    found = [at for at in range(functions[0].lineno - 1, last) if lines[at].strip() == fault.line]
    if len(found) != 1:
        raise StaleFaultError(f"{where}: the line is there {len(found)} times, not once: {fault.line}")
    lines[found[0]] = lines[found[0]].replace(fault.line, fault.faulty)
    changed = "".join(lines)
    try:
        unknown = _names(ast.parse(changed)) - _names(tree)
    except SyntaxError as error:
        raise StaleFaultError(f"{where}: the faulty line is no Python: {error.msg}") from None
    if unknown:
        raise StaleFaultError(f"{where}: the file has no {', '.join(sorted(unknown))}")
    return changed


def _names(tree: ast.Module) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
