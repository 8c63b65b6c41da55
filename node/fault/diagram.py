"""The decision tree of faults as a diagram: ``python -m node.fault.diagram > docs/faults.md``.

    FAULT_TREE --rows--> (depth, answer, question or outcome) --> Mermaid, plain text, and the report's table of counts

What is drawn is the table that the kernels count by (node/fault/outcome.py), so the page cannot tell another story.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from node.fault.outcome import FAULT_TREE, WORDS, FaultOutcome, Tree

COUNTER_PREFIX: Final = "fault."
INDENT: Final = "    "

PAGE: Final = """\
# How page faults end

Made from the table in `node/fault/outcome.py` by `python -m node.fault.diagram > docs/faults.md`. Every fault that the
kernel gets ends at one leaf, and counts there: `Machine.counters()` has the counts as `fault.anon_new_page` and so
on; a run's report and `pagefleet explain faults RUN MACHINE` show this tree with how often each branch ran. An access
that faults again, as after its page table came back, counts at each end,
as does a fault that first splits a huge entry.

## The diagram

```mermaid
{mermaid}
```

## The same as text

```
{text}
```

## Which counter is which

| counter | how the fault ends |
|---|---|
{counters}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the tree: a question with the lines of its answers below it, or an outcome."""

    depth: int
    answer: str  # that leads here; "" at the root
    question: str  # "" at an outcome
    outcome: FaultOutcome | None

    @property
    def counter(self) -> str:
        """The counter of an outcome, or ""."""
        return "" if self.outcome is None else counter_name(self.outcome)

    @property
    def words(self) -> str:
        """What the line says behind its answer."""
        return self.question if self.outcome is None else WORDS[self.outcome]


def counter_name(outcome: FaultOutcome) -> str:
    """Return what ``Machine.counters`` calls an outcome."""
    return COUNTER_PREFIX + outcome.name.lower()


def tree_rows(tree: Tree = FAULT_TREE) -> list[Row]:
    """Return the lines of a tree from its root down, each question before its answers."""
    return list(_rows(tree, 0, ""))


def _rows(tree: "FaultOutcome | Tree", depth: int, answer: str) -> Iterator[Row]:
    if isinstance(tree, FaultOutcome):
        yield Row(depth, answer, "", tree)
        return
    question, answers = tree
    yield Row(depth, answer, question, None)
    for its_answer, below in answers.items():
        yield from _rows(below, depth + 1, its_answer)


def as_text(rows: Sequence[Row]) -> str:
    """Return the tree as indented lines."""
    lines = []
    for row in rows:
        leads = f"{row.answer}: " if row.answer else ""
        ends = f"  [{row.outcome.name}]" if row.outcome is not None else ""
        lines.append(INDENT * row.depth + leads + row.words + ends)
    return "\n".join(lines)


def as_mermaid(rows: Sequence[Row]) -> str:
    """Return the tree as a Mermaid flowchart: questions are lozenges, outcomes boxes."""
    lines = ["flowchart TD"]
    above: list[int] = []  # numbers of the rows that lead to this one
    for number, row in enumerate(rows):
        del above[row.depth :]
        shape = f'{{"{row.words}"}}' if row.outcome is None else f'["{row.outcome.name}<br>{row.words}"]'
        lines.append(f"{INDENT}n{number}{shape}")
        if above:
            lines.append(f'{INDENT}n{above[-1]} -->|"{row.answer}"| n{number}')
        above.append(number)
    return "\n".join(lines)


def page() -> str:
    """Return docs/faults.md."""
    rows = tree_rows()
    counters = "\n".join(f"| `{row.counter}` | {row.words} |" for row in rows if row.outcome is not None)
    return PAGE.format(mermaid=as_mermaid(rows), text=as_text(rows), counters=counters)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 (this is the command's output)
