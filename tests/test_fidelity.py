"""What docs/fidelity.md promises: every simplification that the code marks is listed there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("cluster", "node", "scenarios", "shared")
MARK = "# Differs from " + "Linux:"
FIDELITY = (ROOT / "docs" / "fidelity.md").read_text()
# A row of a table that begins with a file's path.
ROW = re.compile(r"^\| `([a-z0-9_/]+\.py)` \|", re.MULTILINE)


def marks() -> dict[str, int]:
    """Return how many marks each file has that has any."""
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            count = path.read_text().count(MARK)
            if count:
                found[path.relative_to(ROOT).as_posix()] = count
    return found


def test_every_marked_file_has_a_row() -> None:
    assert len(marks()) > 20
    assert sorted(set(marks()) - set(ROW.findall(FIDELITY))) == []


def test_every_row_names_a_marked_file() -> None:
    assert sorted(set(ROW.findall(FIDELITY)) - set(marks())) == []


def test_the_tables_row_by_row_have_as_many_columns_as_their_heads() -> None:
    columns = 0
    for line in FIDELITY.splitlines():
        if not line.startswith("|"):
            columns = 0
        elif columns == 0:
            columns = line.count("|")
        assert not columns or line.count("|") == columns, line


def test_the_commands_that_print_figures_exist() -> None:
    for module in re.findall(r"python -m ([a-z_.]+)", FIDELITY):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
