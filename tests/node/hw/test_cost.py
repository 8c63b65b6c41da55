"""The table of costs: conversion, overrides, and what is refused."""

from fractions import Fraction

import pytest

from node.hw.cost import DEFAULT_CYCLES, Cost, cost_table_ps


def test_every_cost_has_a_default() -> None:
    assert set(DEFAULT_CYCLES) == set(Cost) - {Cost.NR}


@pytest.mark.parametrize(("ghz", "expected_ps"), [("1", 7000), ("3.5", 2000), ("2.6", 2692)])
def test_cycles_become_picoseconds_rounded_down(ghz: str, expected_ps: int) -> None:
    assert cost_table_ps(Fraction(ghz), {})[Cost.TLB_L2_HIT] == expected_ps


def test_an_override_replaces_one_cost() -> None:
    changed = cost_table_ps(Fraction(2), {"ipi": 10})
    default = cost_table_ps(Fraction(2), {})
    assert changed[Cost.IPI] == 5000
    assert (changed != default).sum() == 1


def test_a_first_touch_fault_costs_what_was_measured() -> None:
    table = cost_table_ps(Fraction("2.6"), {})
    faults_per_second = 10**12 / (table[Cost.PAGE_FAULT] + table[Cost.PAGE_ZERO])
    assert faults_per_second == pytest.approx(0.75e6, rel=1e-3)


@pytest.mark.parametrize(
    ("ghz", "overrides", "message"),
    [
        ("0", {}, "clock: 0 GHz is outside"),
        ("11", {}, "clock: 11 GHz is outside"),
        ("1", {"ipis": 1}, r"cost\.ipis: no such cost"),
        ("1", {"nr": 1}, r"cost\.nr: no such cost"),
        ("1", {"ipi": -1}, r"cost\.ipi: -1 cycles is negative"),
        ("1", {"ipi": 10**17}, "more than a clock"),
        ("1", {"memory_access": 0}, "time would stand still"),
    ],
)
def test_a_table_that_cannot_be_is_refused(ghz: str, overrides: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cost_table_ps(Fraction(ghz), overrides)
