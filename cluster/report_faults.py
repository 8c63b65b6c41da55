"""How a machine's faults ended, in a report: the tree of docs/faults.md with how often each branch ran.

CR2 in vmalloc's range, era lecture?      1,234
  no: an area there ... ?                 1,234      a question counts what its answers do
  ...
"""

from dataclasses import dataclass

from cluster.report_chart import Table
from cluster.report_data import History
from cluster.report_page import Page, folded, table
from node.fault.diagram import Row, tree_rows

_INDENT = "\u2003"  # an em space, which HTML keeps


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of the tree: the answer that leads there, the question or the end, and how often it was come by."""

    depth: int
    words: str
    counter: str  # of an end; "" at a question
    times: int


def branches(history: History) -> list[Branch]:
    """Return the tree of a machine's faults, each question before its answers."""
    rows = tree_rows()
    return [
        Branch(row.depth, (f"{row.answer}: " if row.answer else "") + row.words, row.counter, count)
        for row, count in zip(rows, _counts(rows, history), strict=True)
    ]


def add_fault_tree(page: Page, machine: str, history: History) -> None:
    """Add the tree of a machine's faults to a report; nothing if it had none."""
    found = branches(history)
    if found[0].times:
        lines = [[_INDENT * branch.depth + branch.words, f"{branch.times:,}"] for branch in found]
        content = table(Table(["fault", "times"], lines), label=f"How faults of {machine} ended")
        page.add(folded("How its faults ended", content))


def _counts(rows: list[Row], history: History) -> list[int]:
    """Return how often each row of the tree was come by."""
    counts = [history.last(row.counter) if row.counter else 0 for row in rows]
    above: list[int] = []
    for number, row in enumerate(rows):
        del above[row.depth :]
        for question in above:
            counts[question] += counts[number] if row.counter else 0
        above.append(number)
    return counts
