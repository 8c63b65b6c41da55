"""What single values of a scenario may be: types of numbers with units, switches, names, and their limits.

Sizes, times and counts are text with a unit (``512MiB``, ``20ms``, ``1M``) that becomes an integer of bytes,
nanoseconds or operations here, so that nothing after these types knows a unit.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from shared.constants import INT64_MAX, NS_PER_MS, NS_PER_S, PAGE_SIZE
from shared.units import parse_bandwidth, parse_count, parse_duration, parse_size

MAX_MEMORY_BYTES: Final = 1 << 43  # 8 TiB: 2**31 frames, what an i4 frame number counts
MAX_CPUS: Final = 64
MAX_COUNT: Final = 4096
MAX_ENTRIES: Final = 4096
MAX_DURATION_NS: Final = 100 * 24 * 3600 * NS_PER_S  # CPU clocks are int64 picoseconds: 106 days
MIN_EPOCH_NS: Final = NS_PER_MS
MAX_SKEW_THOUSANDTHS: Final = 10_000
THOUSANDTHS: Final = 1000
MAX_INT: Final = (1 << 31) - 1
MAX_SEED: Final = INT64_MAX
MAX_TLB_ENTRIES: Final = 65536
MAX_CACHE_BYTES: Final = 1 << 30
PAGE_OFFSETS: Final = ("0xC0000000", "0xB0000000", "0x80000000", "0x78000000", "0x40000000")


def _with_unit(parse: Callable[[str], int], example: str) -> Callable[[Any], int]:
    def read(value: Any) -> int:  # whatever the YAML held
        if isinstance(value, str):
            return parse(value)
        raise ValueError(f"{value!r} has no unit: write it as {example}")

    return read


def _count(value: Any) -> int:  # whatever the YAML held
    if isinstance(value, str):
        return parse_count(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is no count: write it as 1000 or 1M")


def _text_of_number(value: Any) -> Any:
    """Let YAML's ``6.1`` stand for the text it was written as."""
    return str(value) if isinstance(value, float) else value


def _switch(value: Any) -> Any:
    """Read ``on`` and ``off``, which YAML 1.1 takes for true and false unless they are in quotes."""
    if isinstance(value, bool):
        return value
    if value in ("on", "off"):
        return value == "on"
    raise ValueError(f"{value!r} is not on or off")


def text_of_off(value: Any) -> Any:
    """Let YAML's ``off``, which is false, stand for the text it was written as."""
    return "off" if value is False else value


def is_off(value: Any) -> bool:
    """Return whether a value says that there is none: off, or YAML 1.1's reading of it."""
    return value is None or value is False or value == "off"


def _ways(value: Any) -> int | str:
    if value == "full":
        return "full"
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'{value!r} is neither a number of ways nor "full"')
    if value < 1:
        raise ValueError(f"{value} is below the minimum of 1 (direct-mapped)")
    if value > MAX_TLB_ENTRIES:
        raise ValueError(f"{value} is above the maximum of {MAX_TLB_ENTRIES}")
    return value


def _page_offset(value: Any) -> int:
    known = [int(text, 16) for text in PAGE_OFFSETS]
    number = (
        int(value, 16) if isinstance(value, str) and re.fullmatch("0[xX][0-9A-Fa-f]{1,16}", value) else value
    )
    if isinstance(number, bool) or number not in known:
        shown = hex(value) if isinstance(value, int) else repr(value)
        raise ValueError(f"{shown} is not one of {', '.join(PAGE_OFFSETS)}")
    return int(number)


def _scaled(units: int) -> Callable[[Any], int]:
    """Read a decimal number exactly, as an integer of 1/``units``."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not a decimal number")
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", str(value)):
            raise ValueError(f"{value!r} is not a decimal number such as 1.0")
        try:
            scaled = Decimal(str(value)) * units
        except InvalidOperation:  # pragma: no cover  # the pattern above admits digits only
            raise ValueError(f"{value!r} is not a decimal number") from None
        if scaled != int(scaled):
            raise ValueError(f"{value!r} is finer than 1/{units}")
        return int(scaled)

    return read


def _text_schema(example: str, *, number: bool = False) -> WithJsonSchema:
    kinds = ["string", "number"] if number else "string"
    return WithJsonSchema({"type": kinds, "examples": [example]})


def in_pages(value: int) -> int:
    """Return a number of bytes that is a whole number of pages. Raises ValueError for another."""
    if value % PAGE_SIZE:
        raise ValueError(f"{value} bytes is not a whole number of {PAGE_SIZE}-byte pages")
    return value


Bytes = Annotated[int, BeforeValidator(_with_unit(parse_size, "512MiB")), _text_schema("512MiB")]
Duration = Annotated[int, BeforeValidator(_with_unit(parse_duration, "20ms")), _text_schema("20ms")]
Bandwidth = Annotated[
    int, BeforeValidator(_with_unit(parse_bandwidth, "500MB/s")), Field(ge=1), _text_schema("500MB/s")
]
Count = Annotated[int, BeforeValidator(_count), Field(ge=0), _text_schema("1M", number=True)]
Memory = Annotated[Bytes, Field(ge=PAGE_SIZE, le=MAX_MEMORY_BYTES), AfterValidator(in_pages)]
"""At least a page here; how much a machine's kernel needs, node/build.py knows and says."""
Skew = Annotated[
    int,
    BeforeValidator(_scaled(THOUSANDTHS)),
    Field(le=MAX_SKEW_THOUSANDTHS),
    _text_schema("1.0", number=True),
]
ClockMhz = Annotated[
    int, BeforeValidator(_scaled(THOUSANDTHS)), Field(ge=1), _text_schema("2.5", number=True)
]
Switch = Annotated[int, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
KsmModel = Annotated[Literal["6.1", "6.18"], BeforeValidator(_text_of_number)]
Era = Annotated[Literal["6.1", "lecture"], BeforeValidator(_text_of_number)]
OnOff = Annotated[
    bool, BeforeValidator(_switch), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["on", "off"]}]})
]
Ways = Annotated[
    int | str,
    PlainValidator(_ways),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "full"}]}),
]
PageOffset = Annotated[
    int,
    PlainValidator(_page_offset),
    WithJsonSchema(
        {"anyOf": [{"enum": [*PAGE_OFFSETS]}, {"enum": [int(text, 16) for text in PAGE_OFFSETS]}]}
    ),
]


class Strict(BaseModel):
    """What every mapping of a scenario has in common: no unknown key, no coercion, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def several(of: Any) -> Any:  # a type from a type
    """Return the type of a YAML list of ``of``, kept as a tuple."""
    return Annotated[tuple[of, ...], Field(strict=False, max_length=MAX_ENTRIES)]
