"""The answer of a run in words, and as the few figures that stand large on top of its report."""

from typing import Final

from cluster.report_data import RunData
from cluster.report_figures import PERCENTS, Figures
from cluster.report_numbers import SPACE, as_amount, as_percent, as_size, as_time
from cluster.summary import format_ratio

_MARGINAL: Final = 1.0005  # a slowdown that is written as 1.000 is none


def answer(figures: Figures, run: RunData) -> str:
    """Return what the run found, in words with numbers."""
    sentences = []
    if not run.end_ns:
        return "There are no figures: the run did not get as far as its first sample."
    if figures.nr_hosts:
        sentences += [_saving_sentence(figures, run), _swap_sentence(figures)]
    if figures.nr_machines:
        sentences.append(_machines_sentence(figures))
    if figures.nr_killed:
        sentences.append(f"{count(figures.nr_killed, 'guest')} died because no memory was left.")
    if figures.nr_killed_processes:
        killed = count(figures.nr_killed_processes, "process", "processes")
        sentences.append(f"On the machines {killed} died because no memory was left.")
    sentences.append(_slowdown_sentence(figures, run))
    return " ".join(sentence for sentence in sentences if sentence)


def _saving_sentence(figures: Figures, run: RunData) -> str:
    guests = count(figures.nr_guests, "guest")
    needed = as_size(figures.needed_pages)
    if not figures.saved_pages:
        merges = any(host["ksm"]["run"] == 1 for host in run.manifest["scenario"]["hosts"])
        why = "Merging equal pages gave nothing back" if merges else "KSM was off, so no memory came back"
        return f"{why}: {guests} use {needed}."
    share = figures.saved_pages / figures.needed_pages if figures.needed_pages else 0.0
    times = [
        f"{percent}{SPACE}%{' of that' if percent == PERCENTS[0] else ''} after {as_time(time)}"
        for percent, time in figures.time_to_ns.items()
        if time is not None
    ]
    return (
        f"Merging equal pages gave back {as_size(figures.saved_pages)} of the {needed} that {guests}"
        f" use ({as_percent(share)}): {', '.join(times)}."
    )


def _swap_sentence(figures: Figures) -> str:
    if not figures.swapped_out_pages and not figures.swapped_in_pages:
        return "Nothing was swapped."
    return (
        f"{as_size(figures.swapped_out_pages)} were swapped out"
        f" and {as_size(figures.swapped_in_pages)} back in."
    )


def _machines_sentence(figures: Figures) -> str:
    told = f"{count(figures.nr_machines, 'machine')} did {as_amount(figures.operations)} memory operations"
    told += f" with {as_amount(figures.faults)} page faults"
    if figures.tlb_hits is not None:
        told += f"; the TLBs held {as_percent(figures.tlb_hits)} of the translations"
    return f"{told}."


def _slowdown_sentence(figures: Figures, run: RunData) -> str:
    worst = figures.worst
    if worst is None or worst.slowdown is None:
        return ""
    kind = "machine" if worst.name in run.of_kind("machine") else "guest"
    if worst.slowdown < _MARGINAL:
        return f"No {kind} was slowed down."
    name = worst.name
    if figures.nr_hosts == 1:
        name = name.removeprefix(f"{run.of_kind('host')[0]}.")
    ratio = format_ratio(worst.slowdown)
    return f"The {kind} that suffered most, {name}, took {ratio} times as long as it would have alone."


def count(number: int, one: str, many: str = "") -> str:
    """Write how many there are of something."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def headline(figures: Figures, run: RunData) -> list[tuple[str, str]]:
    """Return the large figures: (number, what it is)."""
    shown = []
    if figures.nr_hosts and run.end_ns:
        shown.append((as_size(figures.saved_pages), "memory that came back"))
        shown.append((as_size(figures.saved_zero_pages), "of it from pages of zeroes"))
        shown.append((as_size(figures.swapped_out_pages), "swapped out"))
        shown.append((as_size(figures.swapped_in_pages), "swapped in"))
        shown += [
            (as_time(time), f"to {percent}{SPACE}% of what came back")
            for percent, time in figures.time_to_ns.items()
            if time is not None
        ]
    elif run.end_ns:
        shown.append((as_amount(figures.operations), "memory operations"))
        shown.append((as_amount(figures.faults), "page faults"))
        if figures.tlb_hits is not None:
            shown.append((as_percent(figures.tlb_hits), "of translations from the TLBs"))
    if figures.worst is not None:
        shown.append((format_ratio(figures.worst.slowdown), "largest slowdown"))
    if figures.nr_killed:
        shown.append((f"{figures.nr_killed:,}", "killed for lack of memory"))
    return shown
