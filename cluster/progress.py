"""The live line of a run: simulated time, guests, what KSM saves, what is swapped. On a terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cluster.coordinator import Progress
from shared.constants import NS_PER_S, PAGE_SIZE
from shared.units import format_duration, format_size

_REFRESHES_PER_SECOND: Final = 8


def say(line: str) -> None:
    """Write a line for people to stderr."""
    sys.stderr.write(f"pagefleet: {line}\n")
    sys.stderr.flush()


@contextmanager
def live_progress(*, wanted: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on stderr while the block runs, if it is wanted and stderr is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    console = Console(file=sys.stderr)
    with Bar(*columns, console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True) as bar:
        task = bar.add_task("starting", total=None, state="")
        shown = 0.0

        def show(progress: Progress) -> None:
            nonlocal shown
            if time.monotonic() - shown < 1 / _REFRESHES_PER_SECOND:
                return
            shown = time.monotonic()
            bar.update(
                task,
                description="simulating",
                total=progress.duration_ns,
                completed=progress.now_ns,
                state=progress_text(progress),
            )

        yield show


def progress_text(progress: Progress) -> str:
    """Say in one line how far a run has come."""
    counters = progress.host_counters
    saved = counters.get("ksm.pages_sharing", 0) + counters.get("ksm.ksm_zero_pages", 0)
    now_ns = progress.now_ns - progress.now_ns % (NS_PER_S // 10)
    return (
        f"{format_duration(now_ns)} of {format_duration(progress.duration_ns)}"
        f" | {progress.nr_guests} guests"
        f" | KSM saves {format_size(saved * PAGE_SIZE)}"
        f" | swapped {format_size(counters.get('nr_swap_used', 0) * PAGE_SIZE)}"
    )
