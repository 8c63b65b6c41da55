"""The list of seeded faults fits the source, and its runner tells killed from survived, stale and broken.

That each fault is killed is for ``make mutation`` to show: it takes minutes.
"""

import re
from pathlib import Path

import pytest

from tests.mutation.__main__ import ROOT, main
from tests.mutation.fault import Fault, Killer, StaleFaultError, seeded
from tests.mutation.faults import FAULTS

TINY = '''\
"""Two limits."""


def low() -> int:
    limit = 3
    return limit


def high() -> int:
    limit = 3
    return limit + 1
'''
LOW_IS_3 = Killer("low", ("-c", "import sys; from node.tiny import low; sys.exit(low() != 3)"))
HIGH_IS_POSITIVE = Killer("high", ("-c", "import sys; from node.tiny import high; sys.exit(high() <= 0)"))
RED = Killer("red", ("-c", "raise SystemExit(1)"))
CRASHES_WITH_4 = Killer("crash", ("-c", "import sys; from node.tiny import low; sys.exit(low() == 4 and 9)"))
SEEN = Fault("low is wrong", "node/tiny.py", "low", "limit = 3", "limit = 4", LOW_IS_3)
UNSEEN = Fault(
    "high is wrong", "node/tiny.py", "high", "return limit + 1", "return limit + 2", HIGH_IS_POSITIVE
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "node").mkdir(parents=True)
    (tree / "node/tiny.py").write_text(TINY)
    return tree


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_changes_one_line_of_the_source(fault: Fault) -> None:
    before, after = (ROOT / fault.file).read_text().splitlines(), seeded(fault, ROOT).splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [tuple(line.strip() for line in pair) for pair in changed] == [(fault.line, fault.faulty)]


def test_no_two_faults_have_one_name() -> None:
    names = [fault.name for fault in FAULTS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_killer_names_what_there_is(fault: Fault) -> None:
    for argument in fault.killer.arguments:
        path, _, name = argument.partition("::")
        if path.startswith("tests/"):
            assert (ROOT / path).is_file()
            assert not name or re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_ci_seeds_the_faults() -> None:
    assert "\nmake mutation\n" in (ROOT / ".ci/run").read_text()
    assert "-m tests.mutation" in (ROOT / "Makefile").read_text()


def test_a_fault_that_is_seen_is_killed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [SEEN], tree) == 0
    said = capsys.readouterr()
    assert re.search(r"low is wrong +\| +node/tiny.py \| +low \| +killed", said.out)
    assert "killed: 1 of 1" in said.out
    assert "without a fault: low: green" in said.err


def test_a_survivor_is_exit_status_1(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [SEEN, UNSEEN], tree) == 1
    said = capsys.readouterr()
    assert re.search(r"high is wrong +\| +node/tiny.py \| +high \| +SURVIVED", said.out)
    assert "killed: 1 of 2" in said.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"line": "limit = 5"}, "the line is there 0 times, not once: limit = 5"),
        ({"function": "middle"}, "0 functions of this name"),
        ({"file": "node/none.py"}, "No such file"),
        ({"faulty": "limit ="}, "no Python"),
        ({"faulty": "limit = three"}, "the file has no three"),
    ],
)
def test_a_stale_line_is_exit_status_2_before_anything_runs(
    tree: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    fields = {
        "name": "stale",
        "file": "node/tiny.py",
        "function": "low",
        "line": "limit = 3",
        "faulty": "pass",
    }
    stale = Fault(killer=LOW_IS_3, **(fields | change))
    assert main([], [SEEN, stale], tree) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mutation: the list is stale: stale: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_line_that_is_there_twice_is_stale(tree: Path) -> None:
    (tree / "node/tiny.py").write_text(
        TINY.replace("    return limit\n", "    limit = 3\n    return limit\n", 1)
    )
    with pytest.raises(StaleFaultError, match="the line is there 2 times"):
        seeded(SEEN, tree)


def test_a_killer_that_is_red_without_a_fault_is_exit_status_2(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    always = Fault("any", "node/tiny.py", "low", "limit = 3", "limit = 4", RED)
    assert main([], [always], tree) == 2
    said = capsys.readouterr()
    assert "without a fault: red: red" in said.err
    assert said.out == ""
    assert main(["--no-green"], [always], tree) == 0  # so it asks first, unless told not to


def test_a_killer_without_a_verdict_is_exit_status_2(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crashing = Fault("any", "node/tiny.py", "low", "limit = 3", "limit = 4", CRASHES_WITH_4)
    assert main([], [crashing, UNSEEN], tree) == 2
    assert re.search(r"crash \| +BROKEN", capsys.readouterr().out)


def test_the_working_copy_stays_as_it_is(tree: Path) -> None:
    main(["--jobs", "1"], [SEEN, UNSEEN], tree)
    assert [path.name for path in tree.rglob("*")] == ["node", "tiny.py"]
    assert (tree / "node/tiny.py").read_text() == TINY


def test_names_choose_faults_and_a_wrong_one_is_exit_status_2(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["low"], [SEEN, UNSEEN], tree) == 0
    capsys.readouterr()
    assert main(["middle"], [SEEN, UNSEEN], tree) == 2
    assert capsys.readouterr().err == "mutation: no name contains middle\n"
    assert main(["--jobs", "0"], [SEEN], tree) == 2
    assert capsys.readouterr().err == "mutation: --jobs: 0 is below 1\n"
