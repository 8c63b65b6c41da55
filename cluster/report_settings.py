"""A resolved scenario as people wrote it: dotted keys as ``--set`` takes them, values with their units."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from cluster.config_values import THOUSANDTHS
from shared.units import format_bandwidth, format_duration, format_size

DEFAULT: Final = "default"
NOTHING: Final = "none"


def _thousandths(value: int) -> str:
    return f"{value / THOUSANDTHS:g}"


_SIZES: Final = ("memory", "size")
_DURATIONS: Final = (
    "duration",
    "epoch",
    "checkpoint_every",
    "metrics_every",
    "start_offset",
    "latency",
)
_WRITTEN: Final[dict[str, Callable[[int], str]]] = {
    **dict.fromkeys(_SIZES, format_size),
    **dict.fromkeys(_DURATIONS, format_duration),
    "bandwidth": format_bandwidth,
    "skew": _thousandths,
    "clock_ghz": _thousandths,
    "page_offset": "{:#x}".format,
}


def flat_settings(scenario: dict[str, Any]) -> dict[str, str]:
    """Return every setting of a scenario by its dotted key, as text with its unit, in the file's order."""
    return dict(_flatten("", scenario))


def _flatten(key: str, value: Any) -> Iterator[tuple[str, str]]:  # whatever JSON holds
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in pairs:
            yield from _flatten(f"{key}.{name}" if key else str(name), inner)
    else:
        yield key, _write(key.rpartition(".")[2], value)


def _write(name: str, value: Any) -> str:
    if value is None:
        # No swap is a setting; any other null leaves the choice to the simulated kernel.
        return NOTHING if name == "swap" else DEFAULT
    if isinstance(value, dict | list) or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "true" if value else "false"
    if name in _WRITTEN and isinstance(value, int):
        return _WRITTEN[name](value)
    return str(value)
