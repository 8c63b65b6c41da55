"""``python -m benchmarks``: every benchmark beside its C twin, in one run, as a table.

Each operation runs eight times as a kernel and as C, in turn; the first of both is thrown away, of the rest
the median counts, in CPU time of the thread. The twins run over states like the kernels', which must be equal
at the end, so nothing is compared that is not the same work.

What this machine's own kernel does too (first touch, fork, copy-on-write, munmap) is then shown beside it.

Exit status: 0 measured, whatever the figures; 1 a twin computes something else; 2 wrong usage, no gcc, or no memory
for what this machine's own kernel is to do.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks import address_space, frames, ksm, slub, translation
from benchmarks.epochs import epoch_figures
from benchmarks.measure import TARGET_RATIO, Result, TwinDiffersError, measure
from benchmarks.own_kernel import TARGET_FACTOR, Comparison, OwnKernelError, compare_with_own_kernel
from benchmarks.program import Figure, program_figures
from benchmarks.switching import switching_figures
from benchmarks.traces import trace_figures
from benchmarks.twin import NoCompilerError, compile_twins

SUITES: Final = (translation, address_space, ksm, frames, slub)
FAILED: Final = 1
REFUSED: Final = 2
PER_MILLION: Final = 1e6


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Benchmarks beside their C twins."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only benchmarks whose name contains one of these"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument("--no-program", action="store_true", help="leave out all but the operations")
    options = parser.parse_args()
    chosen = [
        benchmark
        for suite in SUITES
        for benchmark in suite.BENCHMARKS
        if not options.names or any(name in benchmark.name for name in options.names)
    ]
    if not chosen:
        print(f"benchmarks: no name contains {' or '.join(options.names)}", file=sys.stderr)
        return REFUSED
    if options.json is not None and not os.access(options.json.absolute().parent, os.W_OK):
        print(f"benchmarks: {options.json}: its folder cannot be written to", file=sys.stderr)
        return REFUSED
    try:
        twins = compile_twins()
        print(f"{'M operations/s':32}{'ours':>9}{'C':>9}{'ratio':>8}{'target':>9}", flush=True)
        results = []
        for benchmark in chosen:
            results.append(measure(benchmark, twins))
            print(_line(results[-1]), flush=True)
        comparisons = compare_with_own_kernel(chosen, results)
    except NoCompilerError:
        print(
            "benchmarks: gcc is not installed, and the C twins need it (apt-get install gcc)", file=sys.stderr
        )
        return REFUSED
    except TwinDiffersError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return FAILED
    except OwnKernelError as error:
        print(f"benchmarks: this machine's own kernel cannot be timed: {error}", file=sys.stderr)
        return REFUSED
    _print_comparisons(comparisons)
    figures = []
    if not (options.no_program or options.names):
        for measured in (switching_figures, trace_figures, program_figures, epoch_figures):
            for figure in measured():
                figures.append(figure)
                print(_figure_line(figure), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(_report(results, comparisons, figures), indent=2) + "\n")
    return 0


def _print_comparisons(comparisons: list[Comparison]) -> None:
    if not comparisons:
        return
    print(f"{'M pages/s, as this machine itself':32}{'ours':>9}{'kernel':>9}{'factor':>8}{'target':>9}")
    for each in comparisons:
        ours, kernel = each.ours_per_s / PER_MILLION, each.kernel_per_s / PER_MILLION
        print(
            f"{each.name:32}{ours:9.1f}{kernel:9.2f}{each.factor:8.1f}{TARGET_FACTOR:9.1f}{_mark(each)}",
            flush=True,
        )


def _mark(what: Result | Comparison | Figure) -> str:
    return "" if what.reached else "  <- missed"


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004


def _line(result: Result) -> str:
    ours, c, target = (
        rate / PER_MILLION for rate in (result.ours_per_s, result.c_per_s, result.target_per_s)
    )
    return f"{result.name:32}{ours:9.1f}{c:9.1f}{result.ratio:8.2f}{target:9.1f}{_mark(result)}"


def _figure_line(figure: Figure) -> str:
    value = _number(figure.value)
    limit = "" if figure.limit is None else f"of {_number(figure.limit):>12}"
    return f"{figure.name:46}{value:>12} {limit:15} {figure.unit}{_mark(figure)}"


def _report(results: list[Result], comparisons: list[Comparison], figures: list[Figure]) -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "target_ratio": TARGET_RATIO,
        "operations": [
            asdict(result) | {"ratio": result.ratio, "reached": result.reached} for result in results
        ],
        "own_kernel": [
            asdict(each) | {"factor": each.factor, "target": TARGET_FACTOR, "reached": each.reached}
            for each in comparisons
        ],
        "program": [asdict(figure) | {"reached": figure.reached} for figure in figures],
    }


if __name__ == "__main__":
    sys.exit(main())
