"""Numbers as the report writes them: three significant digits, and no line break before a unit."""

from typing import Final

from shared.constants import GIB, KIB, MIB, NS_PER_MS, NS_PER_S, NS_PER_US, PAGE_SIZE, TIB

SPACE: Final = "\u00a0"  # between a number and its unit
_SIZES: Final = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_COUNTS: Final = ((10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
_DURATIONS: Final = (
    (86400 * NS_PER_S, "days"),
    (3600 * NS_PER_S, "h"),
    (60 * NS_PER_S, "min"),
    (NS_PER_S, "s"),
    (NS_PER_MS, "ms"),
    (NS_PER_US, "us"),
    (1, "ns"),
)
_FROM: Final = {"days": 4, "h": 4, "min": 15}  # of the unit: fewer are told in the next smaller one
_SIGNIFICANT: Final = 3


def as_size(pages: int) -> str:
    """Write a number of pages as a size."""
    unit_bytes, unit = next(
        ((size, unit) for size, unit in _SIZES if abs(pages) * PAGE_SIZE >= size), (MIB, "MiB")
    )
    return f"{digits(pages * PAGE_SIZE / unit_bytes)}{SPACE}{unit}"


def as_time(time_ns: int) -> str:
    """Write a time."""
    for unit_ns, unit in _DURATIONS:
        if time_ns >= unit_ns * _FROM.get(unit, 1):
            return f"{digits(time_ns / unit_ns)}{SPACE}{unit}"
    return f"0{SPACE}s"


def as_amount(count: int) -> str:
    """Write how many there are, in thousands, millions or billions of them where there are many."""
    for factor, word in _COUNTS:
        if count >= factor * 10 or (count >= factor > _COUNTS[-1][0]):
            return f"{digits(count / factor)}{SPACE}{word}"
    return f"{count:,}"


def as_percent(share: float) -> str:
    """Write a share of 1 as a percentage."""
    return f"{digits(share * 100)}{SPACE}%"


def digits(value: float) -> str:
    """Write a number with three significant digits, or all before its point, and no zeroes behind it."""
    whole = len(str(int(abs(value))))
    decimals = max(_SIGNIFICANT - whole, 0)
    if abs(value) < 1:
        decimals = _SIGNIFICANT - 1
    written = f"{value:,.{decimals}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written
