"""The answer of a run in words, and as the few figures that stand large on top of its report."""

from typing import Final

from cluster.report_data import RunData
from cluster.report_figures import PERCENTS, Figures
from cluster.summary import format_pages, format_ratio
from shared.units import format_duration

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
        sentences.append(f"{count(figures.nr_killed, 'guest')} ran out of memory and died.")
    sentences.append(_slowdown_sentence(figures))
    return " ".join(sentence for sentence in sentences if sentence)


def _saving_sentence(figures: Figures, run: RunData) -> str:
    guests = count(figures.nr_guests, "guest")
    needed = format_pages(figures.needed_pages)
    if not figures.saved_pages:
        merges = any(host["ksm"]["run"] == 1 for host in run.manifest["scenario"]["hosts"])
        why = "Merging equal pages gave nothing back" if merges else "KSM was off, so no memory came back"
        return f"{why}: {guests} took {needed}."
    share = figures.saved_pages / figures.needed_pages if figures.needed_pages else 0.0
    times = [
        f"{percent} %{' of that' if percent == PERCENTS[0] else ''} after {format_duration(time)}"
        for percent, time in figures.time_to_ns.items()
        if time is not None
    ]
    return (
        f"Merging equal pages gave back {format_pages(figures.saved_pages)} of the {needed} that {guests}"
        f" took ({share:.0%}): {', '.join(times)}."
    )


def _swap_sentence(figures: Figures) -> str:
    if not figures.swapped_out_pages and not figures.swapped_in_pages:
        return "Nothing was swapped."
    return (
        f"{format_pages(figures.swapped_out_pages)} were swapped out"
        f" and {format_pages(figures.swapped_in_pages)} back in."
    )


def _machines_sentence(figures: Figures) -> str:
    told = f"{count(figures.nr_machines, 'machine')} did {format_count(figures.operations)} memory operations"
    told += f" with {format_count(figures.faults)} page faults"
    if figures.tlb_hits is not None:
        told += f"; the TLBs held {figures.tlb_hits:.1%} of the translations"
    return f"{told}."


def _slowdown_sentence(figures: Figures) -> str:
    worst = figures.worst
    if worst is None or worst.slowdown is None:
        return ""
    kind = "guest" if figures.nr_guests else "machine"
    if worst.slowdown < _MARGINAL:
        return f"No {kind} was slowed down."
    return f"The {kind} that suffered most, {worst.name}, took {format_ratio(worst.slowdown)} times as long."


def count(number: int, noun: str) -> str:
    """Write how many there are of something."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def headline(figures: Figures, run: RunData) -> list[tuple[str, str]]:
    """Return the large figures: (number, what it is)."""
    shown = []
    if figures.nr_hosts and run.end_ns:
        shown.append((format_pages(figures.saved_pages), "memory that came back"))
        shown.append((format_pages(figures.saved_zero_pages), "of it from pages of zeroes"))
        shown += [
            (format_duration(time), f"to {percent} % of it")
            for percent, time in figures.time_to_ns.items()
            if time is not None
        ]
        shown.append((format_pages(figures.swapped_out_pages), "swapped out"))
        shown.append((format_pages(figures.swapped_in_pages), "swapped in"))
    elif run.end_ns:
        shown.append((format_count(figures.operations), "memory operations"))
        shown.append((format_count(figures.faults), "page faults"))
        if figures.tlb_hits is not None:
            shown.append((f"{figures.tlb_hits:.1%}", "of translations from the TLBs"))
    if figures.worst is not None:
        shown.append((format_ratio(figures.worst.slowdown), "largest slowdown"))
    if figures.nr_killed:
        shown.append((f"{figures.nr_killed:,}", "killed for memory"))
    return [*shown, (format_duration(run.end_ns), "simulated")]
