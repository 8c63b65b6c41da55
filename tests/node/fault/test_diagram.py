"""The tree of faults: complete, and drawn as it is."""

import re
from pathlib import Path

from node.fault.diagram import as_mermaid, as_text, page, tree_rows
from node.fault.outcome import WORDS, FaultOutcome
from node.machine import Machine
from node.spec import MachineSpec
from shared.constants import MIB

OUTCOMES = [outcome for outcome in FaultOutcome if outcome is not FaultOutcome.NR]


def test_every_outcome_is_one_leaf_and_has_words() -> None:
    leaves = [row.outcome for row in tree_rows() if row.outcome is not None]
    assert sorted(leaves) == OUTCOMES
    assert sorted(WORDS) == OUTCOMES


def test_every_question_has_more_than_one_answer() -> None:
    rows = tree_rows()
    for number, row in enumerate(rows):
        below = 0
        for other in rows[number + 1 :]:
            if other.depth <= row.depth:
                break
            below += other.depth == row.depth + 1
        assert (below == 0) == (row.outcome is not None)
        assert below != 1


def test_the_page_in_docs_is_current() -> None:
    committed = Path(__file__).parents[3] / "docs" / "faults.md"
    assert committed.read_text() == page(), "python -m node.fault.diagram > docs/faults.md"


def test_each_box_of_the_diagram_but_the_first_is_led_to_once() -> None:
    drawn = as_mermaid(tree_rows())
    boxes = re.findall(r"^ +(n\d+)[{\[]", drawn, re.MULTILINE)
    arrows = re.findall(r'^ +(n\d+) -->\|"[^"]+"\| (n\d+)$', drawn, re.MULTILINE)
    assert len(boxes) == len(tree_rows())
    assert [target for _, target in arrows] == boxes[1:]
    assert all(boxes.index(source) < boxes.index(target) for source, target in arrows)


def test_text_is_indented_by_depth() -> None:
    lines = as_text(tree_rows()).splitlines()
    assert lines[0] == tree_rows()[0].question
    assert "    yes: copy the kernel's entry into this table  [VMALLOC_SYNCED]" in lines


def test_a_machine_counts_how_its_faults_end() -> None:
    machine = Machine(MachineSpec(memory_bytes=64 * MIB))
    before = machine.counters()
    machine.run_program(
        "spawn A\nA: mmap h 64K\nA: read h len=16K\nA: write h\nA: fork C\nC: write h len=8K\nsnapshot s\n"
    )
    after = machine.counters()
    counted = {name: after[name] - before[name] for name in after if name.startswith("fault.")}
    assert len(counted) == len(OUTCOMES)
    assert {name: count for name, count in counted.items() if count} == {
        "fault.anon_zero_page": 4,
        "fault.wp_copied_zero": 4,
        "fault.anon_new_page": 12,
        "fault.wp_copied": 2,
    }
