"""Page walks against another CPU's MMU: the same tables, registers and accesses, and everything compared.

Compared are the translation or the fault of each access, with vector, CR2 and error code, and after each case
all entries of all tables, so A and D. 100,000 accesses; PAGEFLEET_WALKS=1000000 asks for more.

The model, which has the rest of the manual's rules (test_walk.py), is held against Unicorn first.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from tests.models.paging import A, Fault, Translation, translate
from tests.models.unicorn_mmu import PHYSICAL_BITS, UnicornMmu
from tests.node.hw.random_tables import NR_FRAMES, PAGE, Case, Shape, random_cases
from tests.node.hw.walk_entries import How
from tests.node.hw.walking_machine import Tables, WalkingMachine, signed

NR_WALKS: Final = int(os.environ.get("PAGEFLEET_WALKS", "100000"))
# Each walk from the top; or with all caches, which nothing makes stale as long as the tables are the same.
HOWS: Final = (How.DROP_CACHED, How.FAST)
NR_WALKS_THREE_WAYS: Final = 1500
NR_WALKS_OF_THE_MODEL: Final = 10_000
MAX_MISMATCHES: Final = 5  # to be shown

Outcome = int | Fault


@dataclass
class UnicornRun:
    """A case, what Unicorn made of each round's accesses, and its tables as they are afterwards."""

    case: Case
    mmu: UnicornMmu
    code_slot: int  # place in the tables of the entry that is Unicorn's own
    outcomes: list[list[Outcome]]

    def differing_entries(self, ours: npt.NDArray[Any]) -> list[str]:
        """Return address, our entry and Unicorn's of those that differ, but for the A that it sets early."""
        differing = []
        for position in np.flatnonzero(ours != self.mmu.words).tolist():
            paddr = position * self.mmu.entry_bytes
            mine, theirs = int(ours[position]), int(self.mmu.words[position])
            # As tests.models.unicorn_mmu says; test_walk.py sees to it that our A is where it belongs.
            if paddr not in self.case.gigantic or theirs != mine | A:
                differing.append(f"entry at {paddr:#x}: {mine:#x}, not {theirs:#x}")
        return differing


def unicorn_runs(shape: Shape, seed: str, nr_accesses: int) -> Iterator[UnicornRun]:
    """Yield random cases that Unicorn has run."""
    mmu = UnicornMmu(32 if shape is Shape.BITS_32 else 64, NR_FRAMES)
    for case in random_cases(f"{seed} {shape.name}", shape, PHYSICAL_BITS, nr_accesses=nr_accesses):
        mmu.words[:] = 0
        for paddr, entry in case.entries.items():
            mmu.words[paddr // mmu.entry_bytes] = signed(entry)
        code_slot = mmu.map_code(case.root, shape.value)
        outcomes = []
        for round_ in case.rounds:
            mmu.load(round_.registers)
            outcomes.append([mmu.access(vaddr, kind) for vaddr, kind in round_.accesses])
        yield UnicornRun(case, mmu, code_slot, outcomes)


def run_of_ours(machine: WalkingMachine, run: UnicornRun, how: int) -> Iterator[str]:
    """Run a case on our machine; yield what it and Unicorn disagree about."""
    machine.start(run.case)
    machine.words[run.code_slot] = run.mmu.words[run.code_slot]
    for round_, outcomes in zip(run.case.rounds, run.outcomes, strict=True):
        machine.load(round_.registers, keep=not how & How.DROP_CACHED)
        how_here = how if round_.registers.is_user else how & ~How.FAST
        ours = machine.access_all(round_.accesses, how_here)
        for (vaddr, kind), mine, theirs in zip(round_.accesses, ours, outcomes, strict=True):
            expected = theirs if isinstance(theirs, Fault) else theirs & -PAGE
            if mine != expected:
                yield f"{kind.name} {vaddr:#x}: {mine}, not {expected}; {round_.registers}"
    yield from run.differing_entries(machine.words)


def mismatches(shape: Shape, seed: str, nr_accesses: int, how: int) -> list[str]:
    """Return the first things that our walk and Unicorn's disagree about."""
    machine = WalkingMachine(shape, PHYSICAL_BITS)
    runs = unicorn_runs(shape, seed, nr_accesses)
    found = (mismatch for run in runs for mismatch in run_of_ours(machine, run, how))
    return list(islice(found, MAX_MISMATCHES))


@pytest.mark.parametrize("shape", Shape)
def test_the_model_and_unicorn_agree(shape: Shape) -> None:
    nr_translations = 0
    for run in unicorn_runs(shape, "model", NR_WALKS_OF_THE_MODEL):
        words = np.zeros_like(run.mmu.words)
        tables = Tables(words, run.mmu.entry_bytes)
        for paddr, entry in run.case.entries.items():
            tables[paddr] = entry
        words[run.code_slot] = run.mmu.words[run.code_slot]
        for round_, outcomes in zip(run.case.rounds, run.outcomes, strict=True):
            for (vaddr, kind), theirs in zip(round_.accesses, outcomes, strict=True):
                found = translate(tables, round_.registers, vaddr, kind)
                assert theirs == (found.paddr if isinstance(found, Translation) else found)
                nr_translations += isinstance(found, Translation)
        assert run.differing_entries(words) == []
    # The cases are worth something only if many accesses arrive and many do not.
    assert NR_WALKS_OF_THE_MODEL / 4 < nr_translations < NR_WALKS_OF_THE_MODEL * 3 / 4


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("shape", Shape)
def test_our_walks_and_unicorns_agree(shape: Shape, how: int) -> None:
    assert mismatches(shape, "many", NR_WALKS // (len(Shape) * len(HOWS)), how) == []


@pytest.mark.three_ways
@pytest.mark.parametrize("shape", Shape)
def test_some_of_our_walks_and_unicorns_agree_in_every_build(shape: Shape) -> None:
    assert mismatches(shape, "few", NR_WALKS_THREE_WAYS, How.FAST) == []
