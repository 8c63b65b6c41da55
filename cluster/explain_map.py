"""``pagefleet explain memory-map``: the named pages of a machine with physical addresses, or those of one address."""

import re
import sys
from collections.abc import Iterator
from typing import Any, Final

from cluster.errors import InputError
from node.apple2 import (
    ADDRESS_END,
    MEMORY_MAP,
    PAGE_BYTES,
    PAGES_PER_FRAME,
    RAM_BYTES,
    NamedPages,
    pages_at,
)
from shared.units import format_size

Said = dict[str, Any]

_ADDRESS: Final = re.compile(r"(?:0[xX]|\$)(?P<hex>[0-9A-Fa-f]{1,16})|(?P<decimal>[0-9]{1,20})", re.ASCII)


def explain_memory_map(preset: str, address: str | None) -> Said:
    """Return what is where: all named pages, and, if an address is given, which of them holds it.

    Raises ``InputError`` for an address that is none of the machine's.
    """
    said: Said = {
        "preset": preset,
        "address_bits": (ADDRESS_END - 1).bit_length(),
        "page_bytes": PAGE_BYTES,
        "ram_bytes": RAM_BYTES,
        "pages": [_as_dict(one) for one in MEMORY_MAP],
    }
    if address is not None:
        number = _read_address(address)
        try:
            one = pages_at(number)
        except ValueError as error:
            raise InputError(str(error)) from None
        page = number // PAGE_BYTES
        said["address"] = {
            "address": number,
            "page": page,
            "offset": number % PAGE_BYTES,
            "frame": page // PAGES_PER_FRAME,
            "held_by": _as_dict(one),
        }
    return said


def lines_of(said: Said) -> Iterator[str]:
    """Yield the map, or the place of the one address that was asked for, as people read it."""
    yield (
        f"machine   {said['preset']}: {said['address_bits']} address bits, {format_size(said['ram_bytes'])}"
        f" of RAM, no paging: every address is physical"
    )
    yield ""
    asked = said.get("address")
    if asked is None:
        yield "pages    addresses        frame  kind  name"
        yield from map(_line, said["pages"])
        return
    yield (
        f"address   ${asked['address']:04X}: page ${asked['page']:02X}, byte ${asked['offset']:02X} of it,"
        f" in frame {asked['frame']}"
    )
    yield ""
    yield _line(asked["held_by"])


def print_memory_map(said: Said) -> None:
    """Print ``lines_of`` to stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines_of(said)))


def _as_dict(one: NamedPages) -> Said:
    return {
        "first_page": one.first,
        "last_page": one.last,
        "start": one.start,
        "end": one.end,
        "frames": list(one.frames),
        "kind": one.kind,
        "name": one.name,
        "use": one.use,
    }


def _line(one: Said) -> str:
    pages = _range(one["first_page"], one["last_page"], "{:02X}")
    first_frame, last_frame = one["frames"]
    frames = _range(first_frame, last_frame, "{:d}")
    return (
        f"{pages:<8} ${one['start']:04X} .. ${one['end']:04X}   {frames:<5}  {one['kind']:<4}"
        f"  {one['name']}: {one['use']}"
    )


def _range(first: int, last: int, form: str) -> str:
    text = form.format(first)
    return text if first == last else f"{text}-{form.format(last)}"


def _read_address(text: str) -> int:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise InputError(f"ADDRESS {text[:40]!r}: not a hexadecimal (0x... or $...) or decimal number")
    return int(match["hex"], 16) if match["hex"] else int(match["decimal"])
