"""Quantities with units, read from text and written for people.

A scenario says ``512MiB``, ``20ms``, ``1M``, ``500MB/s``; the program holds integers: bytes,
nanoseconds, a count, bytes a second. A unit is never guessed: a bare ``512`` is refused
wherever a unit is needed. Fractions are exact (``1.75GiB``) and must come out whole in
the base unit, so what a scenario says is what is simulated.

Every parser raises ``ValueError`` with the value and what would have been accepted.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from shared.constants import GIB, INT64_MAX, KIB, MIB, NS_PER_MS, NS_PER_S, NS_PER_US, TIB

_SIZES: Final = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATIONS: Final = {
    "ns": 1,
    "us": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_COUNTS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BANDWIDTHS: Final = {
    "B/s": 1,
    "kB/s": 10**3,
    "MB/s": 10**6,
    "GB/s": 10**9,
    "KiB/s": KIB,
    "MiB/s": MIB,
    "GiB/s": GIB,
}
# Digits stay ASCII and few: int() takes any script's digits and a number of any length.
_QUANTITY: Final = re.compile(r"(?P<number>[0-9]{1,20}(?:\.[0-9]{1,20})?) ?(?P<unit>[A-Za-z/]*)", re.ASCII)
_LONGEST_SHOWN: Final = 40  # characters of a wrong value that an error repeats


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` (``4KiB``, ``512MiB``, ``1.75GiB``) stands for."""
    return _parse(text, _SIZES, "a size such as 512MiB")


def parse_duration(text: str) -> int:
    """Return the nanoseconds that ``text`` (``10ns``, ``20ms``, ``5s``, ``2min``) stands for."""
    return _parse(text, _DURATIONS, "a time such as 20ms")


def parse_count(text: str) -> int:
    """Return the number that ``text`` (``1000``, ``250k``, ``1M``) stands for; k, M and G are decimal."""
    return _parse(text, _COUNTS, "a count such as 1000 or 1M")


def parse_bandwidth(text: str) -> int:
    """Return the bytes a second that ``text`` (``500MB/s``, ``3GiB/s``) stands for."""
    return _parse(text, _BANDWIDTHS, "a bandwidth such as 500MB/s")


def format_size(size_bytes: int) -> str:
    """Write a size for people: ``1.75 GiB``. Rounds to two decimals."""
    return _format(size_bytes, _SIZES)


def format_duration(duration_ns: int) -> str:
    """Write a time for people: ``20 ms``. Rounds to two decimals."""
    return _format(duration_ns, _DURATIONS)


def format_count(count: int) -> str:
    """Write a count for people: ``1.25 M``. Rounds to two decimals."""
    return _format(count, _COUNTS)


def format_bandwidth(bytes_per_s: int) -> str:
    """Write a bandwidth for people, in decimal units: ``500 MB/s``. Rounds to two decimals."""
    return _format(bytes_per_s, {unit: factor for unit, factor in _BANDWIDTHS.items() if "i" not in unit})


def _parse(text: str, units: Mapping[str, int], wanted: str) -> int:
    match = _QUANTITY.fullmatch(text.strip())
    shown = repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")
    if match is None or match["unit"] not in units:
        named = ", ".join(unit or "none" for unit in units)
        raise ValueError(f"{shown} is not {wanted} (units: {named})")
    value = Fraction(match["number"]) * units[match["unit"]]
    if value.denominator != 1:
        raise ValueError(
            f"{shown} is not {wanted}: it is {float(value):g} of the smallest unit, not a whole number"
        )
    if value > INT64_MAX:
        raise ValueError(f"{shown} is not {wanted}: it is over the limit of {INT64_MAX} (2**63 - 1)")
    return int(value)


def _format(value: int, units: Mapping[str, int]) -> str:
    """Write ``value`` in the largest unit of ``units`` (ascending factors) that leaves it at least 1."""
    chosen, factor = next(iter(units.items()))
    for unit, unit_factor in units.items():
        # Compare what would be written: 1024 MiB less a byte rounds to 1024 MiB, which is 1 GiB.
        if abs(round(Fraction(value, factor), 2)) * factor >= unit_factor:
            chosen, factor = unit, unit_factor
    number = f"{float(round(Fraction(value, factor), 2)):.2f}".rstrip("0").rstrip(".")
    return f"{number} {chosen}".rstrip()
