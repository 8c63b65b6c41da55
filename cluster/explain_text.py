"""An explanation as people read it: a few titled blocks of short lines, coloured on a terminal, plain elsewhere.

    machine, access, address split into indexes, registers        what is asked
    TLBs and walk caches, walk, result                             for each access that is made

Lines fit 100 columns. Whatever is in them is in the JSON too.
"""

import sys
from collections.abc import Iterator
from typing import Any, Final

from shared.units import format_duration, format_size

Said = dict[str, Any]
Line = tuple[str, str]  # text, and its style on a terminal

TITLE: Final = "bold"
GOOD: Final = "green"
BAD: Final = "red"
DIM: Final = "dim"
PLAIN: Final = ""
_ACCESSES: Final = {"read": "read of", "write": "write to", "execute": "instruction fetch from"}
_ENDS: Final = {
    "nothing": "nothing is there",
    "nothing (PROT_NONE)": "a page that nobody may touch (PROT_NONE)",
    "no memory": "behind the memory",
}


def print_translation(said: Said) -> None:
    """Print an explanation to stdout."""
    from rich.console import Console
    from rich.text import Text

    lines = list(lines_of(said))  # all of it, before anything is printed
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for text, style in lines:
        console.print(Text(text.rstrip(), style=style))


def lines_of(said: Said) -> Iterator[Line]:
    """Yield the lines of an explanation."""
    yield from _question(said)
    yield from _address(said)
    yield from _registers(said)
    many = len(said["accesses"]) > 1
    for number, access in enumerate(said["accesses"], start=1):
        if many:
            yield "", PLAIN
            yield f"=== access {number} ===", TITLE
        yield from _caches(access, has_pcids=said["machine"]["pcid"])
        yield from _walk(said, access["walk"])
        yield from _result(access)


def _title(text: str) -> Iterator[Line]:
    yield "", PLAIN
    yield text, TITLE


# --- what is asked --------------------------------------------------------------------------------------


def _question(said: Said) -> Iterator[Line]:
    machine, question, region = said["machine"], said["question"], said["region"]
    paging = "no paging"
    if machine["paging"] != "none":
        paging = (
            f"{machine['paging']} paging, PCID {_switch(machine['pcid'])}, KPTI {_switch(machine['pti'])}"
        )
    guest = ", a guest" if machine["guest"] else ""
    refill = ", software refills the TLB" if machine["refill"] == "software" else ""
    cpus = f"{machine['cpus']} CPU{'s' if machine['cpus'] > 1 else ''}"
    yield (
        (
            f"machine   {machine['name']}: {machine['processor']}, {format_size(machine['memory_bytes'])}, {cpus}, "
            f"{paging}{guest}{refill}"
        ),
        PLAIN,
    )
    whose = f"process {question['process']}" if question["process"] != "kernel" else "the kernel's own tables"
    yield (
        (
            f"access    {_ACCESSES[question['access']]} {said['address']['linear']} in {question['mode']} mode, "
            f"{whose}, CPU {question['cpu']}, at {format_duration(question['time_ns'])}"
        ),
        PLAIN,
    )
    what = (
        region["what"] if region["what"].startswith(region["name"]) else f"{region['name']}: {region['what']}"
    )
    yield f"region    {what}", PLAIN
    yield f"          {region['first']} .. {region['last']}", DIM
    area = said["area"]
    if area:
        yield f"area      {area['first']} .. {area['last']} {area['rights']}, of the process", PLAIN
    elif question["process"] != "kernel":
        yield "area      none of the process's", PLAIN


def _switch(is_on: bool) -> str:
    return "on" if is_on else "off"


def _address(said: Said) -> Iterator[Line]:
    address = said["address"]
    if not address["parts"]:
        return
    yield from _title("address")
    for part in address["parts"]:
        yield (
            (
                f"  bits {part['high_bit']:>2}..{part['low_bit']:<2}  {_both_names(part):<10}  index {part['index']:>4}"
            ),
            PLAIN,
        )
    low = address["parts"][-1]["low_bit"]
    yield f"  bits {low - 1:>2}..0   offset      {address['page_offset']}", PLAIN
    if not address["canonical"]:
        bits = address["linear_bits"]
        yield f"  not canonical: bits 63..{bits - 1} are not all alike", BAD


def _both_names(part: Said) -> str:
    return f"{part['level']} {part['intel']}"


def _registers(said: Said) -> Iterator[Line]:
    registers = said["registers"]
    yield from _title("registers")
    if "PG" in registers["cr0_bits"]:
        yield f"  CR3   {registers['cr3']}  {_cr3(registers)}", PLAIN
        yield f"  CR4   {registers['cr4']:<18}  {' '.join(registers['cr4_bits'])}", PLAIN
        yield f"  EFER  {registers['efer']:<18}  {' '.join(registers['efer_bits'])}", PLAIN
    off = "" if "PG" in registers["cr0_bits"] else "  (PG clear: addresses are physical)"
    yield f"  CR0   {registers['cr0']:<18}  {' '.join(registers['cr0_bits'])}{off}", PLAIN
    if "PKE" in registers["cr4_bits"]:
        yield f"  PKRU  {registers['pkru']}", PLAIN
    yield f"  CPL {registers['cpl']}, EFLAGS.AC {registers['ac']}", PLAIN


def _cr3(registers: Said) -> str:
    text = f"top table in frame {registers['root_frame']}"
    if registers["pti_copy"]:
        text += f" (KPTI's {registers['pti_copy']} copy)"
    if registers["pcid"] is not None:
        text += f", PCID {registers['pcid']}"
    if registers["asid"] is not None:
        text += f" (ASID {registers['asid']})"
    return text


# --- what is cached -------------------------------------------------------------------------------------


def _caches(access: Said, *, has_pcids: bool) -> Iterator[Line]:
    if not access["tlbs"]:
        return
    yield from _title("TLBs before the access")
    for tlb in access["tlbs"]:
        name = f"{tlb['level']} level: {tlb['array'].removeprefix('second ')}"
        page = f"as {tlb['page_size']}"
        yield (
            f"{_array(name, tlb)}  {page:<7}  {_held(tlb, has_pcids=has_pcids)}",
            GOOD if tlb["held"] else PLAIN,
        )
    for cache in access["walk_caches"]:
        held = cache["held"]
        what = f"table in frame {held['table_frame']}" if held else "-"
        name = f"walk cache: {cache['cache']}"
        yield f"{_array(name, cache)}  {cache['level']:<7}  {what}", GOOD if held else PLAIN


def _array(name: str, row: Said) -> str:
    """Write which array this is, its entries and ways, and the set that is looked into."""
    geometry = f"{row['entries']}/{row['ways']}"
    return f"  {name:<24}  {geometry:>8}  set {row['set']:>4}"


def _held(tlb: Said, *, has_pcids: bool) -> str:
    others = " and ".join(str(pcid) for pcid in tlb["other_pcids"])
    held = tlb["held"]
    if held is None:
        return f"- (held under PCID {others})" if others else "-"
    rights = "".join(
        letter if held["rights"][name] else "-"
        for name, letter in (("user", "u"), ("write", "w"), ("execute", "x"))
    )
    parts = [f"frame {held['frame']}", rights]
    if held["global"]:
        parts.append("global")
    elif has_pcids:
        parts.append(f"PCID {held['pcid']}")
    if held["dirty"]:
        parts.append("D")
    if others:
        parts.append(f"and under PCID {others}")
    return ", ".join(parts)


# --- the walk -------------------------------------------------------------------------------------------


def _walk(said: Said, walk: Said) -> Iterator[Line]:
    if not walk["levels"]:
        return
    yield from _title(f"walk ({_references(said, walk)})")
    for level in walk["levels"]:
        style = PLAIN if level["read"] else DIM
        value = level["value"] or "all ones"
        skipped = "" if level["read"] else "  not read"
        yield (
            (
                f"  {_both_names(level):<9} [{level['index']:>4}]  at {level['entry_address']:<12}  {value}{skipped}"
            ),
            style,
        )
        for line in _entry(level):
            yield f"      {line}", style if level["leads_to"] in ("table", "page") else BAD


def _references(said: Said, walk: Said) -> str:
    own = walk["references"]
    if not own:
        return "none, a TLB answered; this is what the tables hold"
    text = f"{own} entr{'y' if own == 1 else 'ies'} read"
    if said["machine"]["guest"]:
        both = own + walk["ept_references"]
        text = f"nested: {both} entries read, {own} of the guest's and {walk['ept_references']} of the host's"
    if walk["shortened_by"]:
        text += f"; the {walk['shortened_by']} cache led past the others"
    return text


def _entry(level: Said) -> Iterator[str]:
    """Yield the lines below a level: its bits, where it leads, and what is special."""
    bits = level.get("bits", {})
    if bits:
        yield " ".join(f"{name}={value}" for name, value in bits.items()) + _key(level)
    changed = level.get("set_by_access")
    yield _where(level) + (f"; this access set {' and '.join(changed)}" if changed else "")
    other = level.get("other_copy")
    if other:
        yield f"(KPTI's {other['copy']} copy has {other['value']} there)"


def _where(level: Said) -> str:
    """Say where an entry leads."""
    end: str = level["leads_to"]
    if end == "table":
        return f"-> table in frame {level['frame']}"
    if end == "page":
        return f"-> {level['page_size']} page from frame {level['frame']} on"
    if end == "swap":
        return f"-> slot {level['swap_slot']} of the swap area"
    if end == "reserved bits":
        return f"reserved bits are set: {level['reserved_bits']}"
    return _ENDS[end]


def _key(level: Said) -> str:
    return f" key={level['key']}" if "key" in level else ""


# --- what came of it ------------------------------------------------------------------------------------


def _result(access: Said) -> Iterator[Line]:
    yield from _title("result")
    outcome = access["outcome"]
    yield from _page(outcome) if outcome["result"] == "page" else _fault(outcome)
    cost = access["cost"]
    counters = ", ".join(f"{name} +{value}" for name, value in access["counters"].items())
    cycles = f"{cost['cycles']} cycle{'' if cost['cycles'] == 1 else 's'}"
    yield f"  cost      {cycles}, beside the access to the memory itself", PLAIN
    yield f"  counters  {counters or 'none'}", PLAIN


def _page(outcome: Said) -> Iterator[Line]:
    yield f"  physical address {outcome['physical_address']}, {_finder(outcome['served_by'])}", GOOD
    yield f"  frame {outcome['frame']}: {outcome['frame_is']}", PLAIN
    if "page_size" not in outcome:
        return
    rights = [name for name in ("user", "write", "execute") if outcome["rights"][name]]
    tail = ", global" if outcome["global"] else ""
    key = "" if outcome["key"] is None else f", protection key {outcome['key']}"
    yield (
        (
            f"  {outcome['page_size']} page, memory type {outcome['memory_type']}{tail}{key}; "
            f"all levels together allow: {', '.join(rights) or 'the kernel to read'}"
        ),
        PLAIN,
    )


def _finder(served_by: str) -> str:
    if served_by.endswith("TLB"):
        return f"found in the {served_by}"
    return "found by the walk" if served_by == "walk" else "the address itself: paging is off"


def _fault(outcome: Said) -> Iterator[Line]:
    code = f"error code {outcome['error_code']}"
    if outcome["error_bits"]:
        code += f" ({' '.join(outcome['error_bits'])})"
    cr2 = f", CR2 {outcome['cr2']}" if "cr2" in outcome else ""
    yield f"  {outcome['name']} (vector {outcome['vector']}), {code}{cr2}", BAD
    yield f"  {outcome['because']}", BAD
    linux = outcome["linux"]
    came_of_it = f": {linux['outcome']}" if "outcome" in linux and linux["outcome"] != linux["action"] else ""
    yield f"  Linux     {linux['says']}{came_of_it}", PLAIN
