"""The command line: verbs, flags, exit statuses, and who may write where.

    stdout   results: tables, or with --json one JSON document and nothing else
    stderr   a progress bar on a terminal, and what people should know, a line each
    status   0 done; 2 something wrong before the first epoch; 1 a run or check that failed after it;
             130 SIGINT, 143 SIGTERM

Whatever is wrong is one line; ``PAGEFLEET_DEBUG=1`` in the environment shows the traceback. Everything
that costs time to import is imported by the verb that needs it, so that ``--help`` answers at once.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from cluster.errors import ExitStatus, InputError, RunFailed, Stopped, one_line

DEBUG: Final = "PAGEFLEET_DEBUG"
_MAX_SEED: Final = (1 << 63) - 1
_MAX_CPU: Final = 63
_MAX_REPEATS: Final = 100
_STATUS_OF_SIGNAL: Final = {signal.SIGINT: ExitStatus.INTERRUPTED, signal.SIGTERM: ExitStatus.TERMINATED}


class _Parser(argparse.ArgumentParser):
    """argparse, with a usage error on one line like every other error."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def run_command(arguments: Sequence[str]) -> int:
    """Carry out one command and return its exit status."""
    try:
        options = build_parser().parse_args(arguments)
        _stop_on_signals()
        status: int = options.verb(options)
    except InputError as error:
        return _say(error, ExitStatus.WRONG_INPUT)
    except RunFailed as error:
        return _say(error, ExitStatus.FAILED)
    except Stopped as stopped:
        return _say(stopped, stopped.status)
    except KeyboardInterrupt:
        return _say(Stopped(ExitStatus.INTERRUPTED), ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read stdout has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        return _say(f"internal error: {type(error).__name__}: {one_line(error)}", ExitStatus.FAILED)
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="pagefleet", description="Predict what Linux would do with the memory of a fleet of machines."
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)

    run = verbs.add_parser("run", help="run a scenario", description="Run a scenario.")
    _add_scenario(run)
    run.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/NAME-SEED-NUMBER)")
    run.add_argument("--executor", choices=("ray", "inline"), default="ray", help="default: ray")
    run.add_argument("--address", metavar="HOST:PORT", help="join this running Ray cluster")
    run.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    run.add_argument("--check", action="store_true", help="check every invariant at every epoch's border")
    run.add_argument("--no-report", action="store_true", help="write no report.html")
    run.set_defaults(verb=_run)

    report = verbs.add_parser(
        "report", help="write a run's report.html again", description="Write a run's report.html again."
    )
    report.add_argument("run", type=Path, metavar="RUN", help="run directory")
    report.add_argument("--compare", type=Path, metavar="OTHER", help="show it beside this run")
    report.add_argument("--json", action="store_true", help="print the result as JSON")
    report.set_defaults(verb=_report)

    validate = verbs.add_parser("validate", help="check a scenario", description="Check a scenario.")
    _add_scenario(validate, optional=True)
    validate.add_argument("--schema", action="store_true", help="print the JSON Schema of scenarios instead")
    validate.set_defaults(verb=_validate)

    check = verbs.add_parser(
        "check",
        help="compare with a real kernel's counters",
        description="Compare with a real kernel's counters.",
    )
    check.add_argument(
        "golden", type=Path, nargs="+", metavar="GOLDEN", help="recorded case (JSON, may be .gz)"
    )
    check.add_argument("-v", "--verbose", action="store_true", help="show every counter, not only those off")
    check.add_argument(
        "--write", type=Path, metavar="DIR", help="write our counters there, in the same format"
    )
    check.add_argument("--json", action="store_true", help="print the result as JSON")
    check.set_defaults(verb=_check)

    sweep = verbs.add_parser(
        "sweep", help="run every combination of settings", description="Run every combination of settings."
    )
    _add_scenario(sweep)
    sweep.add_argument(
        "--grid", action="append", default=[], metavar="KEY=V1,V2", help="values of a key (repeatable)"
    )
    sweep.add_argument("--out", type=Path, metavar="DIR", help="folder (default: runs/sweep-NAME)")
    sweep.set_defaults(verb=_sweep)

    proc = verbs.add_parser(
        "proc",
        help="print a file of /proc of a run's machine",
        description="Print a file of /proc of a machine of a run, as Linux would.",
    )
    proc.add_argument("run", type=Path, metavar="RUN", help="run directory")
    proc.add_argument("machine", metavar="MACHINE", help="name of a host, a guest or a machine")
    proc.add_argument("file", metavar="FILE", help="/proc/buddyinfo, /proc/zoneinfo, /proc/meminfo, ...")
    proc.add_argument("--at", metavar="TIME", help="a sampled time: 20s (default: the last)")
    proc.add_argument("--json", action="store_true", help="print the result as JSON")
    proc.set_defaults(verb=_proc)

    _add_explain(verbs)
    return parser


def _add_explain(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    explain = verbs.add_parser(
        "explain", help="show one access step by step", description="Show what a machine does, step by step."
    )
    subjects = explain.add_subparsers(
        title="subjects", metavar="SUBJECT", required=True, parser_class=_Parser
    )
    translate = subjects.add_parser(
        "translate",
        help="how an address is translated",
        description="Show how an address is translated: TLBs, the walk level by level, the page or the fault.",
    )
    translate.add_argument(
        "address",
        metavar="ADDRESS",
        help="0x..., a decimal number, or a place: first (of the process's memory), direct-map, vmalloc, ...;"
        " +OFFSET may follow",
    )
    translate.add_argument(
        "--machine",
        required=True,
        metavar="SPEC",
        help="SCENARIO.yaml:NAME, or keys of a machine: zen4,memory=1GiB,hw.paging=5level",
    )
    translate.add_argument("--access", choices=("read", "write", "execute"), default="read")
    translate.add_argument(
        "--mode", choices=("user", "kernel"), help="default: user, but kernel at the kernel's addresses"
    )
    translate.add_argument(
        "--process", metavar="N", help="whose address space, counted from 0, or kernel (default: 0)"
    )
    translate.add_argument(
        "--cpu", type=_cpu, metavar="N", help="which CPU makes the access (default: the process's)"
    )
    translate.add_argument("--at", metavar="TIME", help="run the machine up to this time first: 5ms")
    translate.add_argument(
        "--repeat", type=_repeats, default=0, metavar="N", help="then make the access N times more"
    )
    translate.add_argument(
        "--ac", action="store_true", help="with EFLAGS.AC set, as the kernel has it in copy_from_user"
    )
    _add_settings(translate)
    translate.set_defaults(verb=_explain)
    faults = subjects.add_parser(
        "faults",
        help="how the page faults of a run's machine ended",
        description="Show the decision tree of page faults, with how often each branch ran.",
    )
    faults.add_argument("run", type=Path, metavar="RUN", help="run directory")
    faults.add_argument("machine", metavar="MACHINE", help="name of a host, a guest or a machine")
    faults.add_argument("--json", action="store_true", help="print the result as JSON")
    faults.set_defaults(verb=_explain_faults)
    memory_map = subjects.add_parser(
        "memory-map",
        help="the named pages of a machine with physical addresses",
        description="Show what each page of memory is for, on a machine whose addresses are physical.",
    )
    memory_map.add_argument(
        "address", metavar="ADDRESS", nargs="?", help="0x..., $... or a decimal number: which page is that?"
    )
    memory_map.add_argument("--preset", choices=("apple2",), required=True, help="the machine")
    memory_map.add_argument("--json", action="store_true", help="print the result as JSON")
    memory_map.set_defaults(verb=_memory_map)


def _add_scenario(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument(
        "scenario", type=Path, metavar="SCENARIO", nargs="?" if optional else None, help="YAML file"
    )
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key: hosts.0.cpus=4 (repeatable)",
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="override the scenario's seed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _seed(text: str) -> int:
    return _up_to(_MAX_SEED, text)


def _up_to(maximum: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > maximum:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {maximum}")
    return int(text)


def _cpu(text: str) -> int:
    return _up_to(_MAX_CPU, text)


def _repeats(text: str) -> int:
    return _up_to(_MAX_REPEATS, text)


def _run(options: argparse.Namespace) -> int:
    from cluster.report import REPORT
    from cluster.run import RunRequest, run_scenario
    from cluster.summary import print_json, print_summary

    request = RunRequest(
        scenario=options.scenario,
        settings=(*options.set, *(("check_invariants=true",) if options.check else ())),
        seed=options.seed,
        out=options.out,
        executor=options.executor,
        address=options.address,
        resume=options.resume,
        report=not options.no_report,
    )
    outcome = run_scenario(request)
    if options.json:
        print_json({"path": str(outcome.path), **_headline(outcome.manifest), "summary": outcome.summary})
    else:
        report = outcome.path / REPORT
        footer = {"digest": outcome.manifest["digest"], "run": str(outcome.path)}
        print_summary(outcome.summary, footer | ({"report": str(report)} if report.is_file() else {}))
    return ExitStatus.DONE


def _headline(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("name", "seed", "status", "digest", "wall_seconds", "cpu_seconds")}


def _report(options: argparse.Namespace) -> int:
    from cluster.report import write_report
    from cluster.summary import print_json

    path = write_report(options.run, options.compare)
    if options.json:
        print_json({"path": str(path)})
    else:
        sys.stdout.write(f"report: {path}\n")
    return ExitStatus.DONE


def _validate(options: argparse.Namespace) -> int:
    from cluster.scenario_file import schema_text

    if options.schema:
        sys.stdout.write(schema_text())
        return ExitStatus.DONE
    if options.scenario is None:
        raise InputError("validate: name a SCENARIO, or use --schema (see pagefleet validate --help)")
    from cluster.run import prepare
    from cluster.summary import print_json

    scenario, plan = prepare(options.scenario, tuple(options.set), options.seed)
    if options.json:
        print_json(scenario.model_dump(mode="json"))
    else:
        hosts = sum(spec["kind"] == "host" for spec in plan.specs)
        others = len(plan.specs) - hosts
        sys.stdout.write(f"{options.scenario}: valid: {hosts} hosts, {others} guests and machines\n")
    return ExitStatus.DONE


def _check(options: argparse.Namespace) -> int:
    from node.check_report import Telling, check_files
    from node.golden_file import GoldenError

    telling = Telling(json=options.json, verbose=options.verbose, folder=options.write)
    try:
        return check_files(options.golden, sys.stdout.write, telling)
    except GoldenError as error:
        raise InputError(one_line(error)) from None


def _sweep(options: argparse.Namespace) -> int:
    from cluster.summary import print_json
    from cluster.sweep import SweepRequest, print_sweep, run_sweep

    request = SweepRequest(
        scenario=options.scenario,
        settings=tuple(options.set),
        seed=options.seed,
        grid=tuple(options.grid),
        out=options.out,
    )
    outcome = run_sweep(request)
    if options.json:
        print_json({"path": str(outcome.path), "points": outcome.rows})
    else:
        print_sweep(outcome)
    return ExitStatus.FAILED if outcome.nr_failed else ExitStatus.DONE


def _proc(options: argparse.Namespace) -> int:
    from cluster.proc import as_document, read_proc_file
    from cluster.summary import print_json

    read = read_proc_file(options.run, options.machine, options.file, options.at)
    if options.json:
        print_json(as_document(read))
    else:
        sys.stdout.write(read.text)
    return ExitStatus.DONE


def _tell(options: argparse.Namespace, said: Any, write: Callable[[Any], None]) -> int:
    from cluster.summary import print_json

    (print_json if options.json else write)(said)
    return ExitStatus.DONE


def _explain(options: argparse.Namespace) -> int:
    from cluster.explain import ExplainRequest, explain_translate
    from cluster.explain_text import print_translation

    said = explain_translate(
        ExplainRequest(
            machine=options.machine,
            address=options.address,
            access=options.access,
            mode=options.mode,
            process=options.process,
            cpu=options.cpu,
            at=options.at,
            ac=options.ac,
            repeat=options.repeat,
            settings=tuple(options.set),
            seed=options.seed,
        )
    )
    return _tell(options, said, print_translation)


def _explain_faults(options: argparse.Namespace) -> int:
    from cluster.explain_faults import explain_faults, print_faults

    said = explain_faults(options.run, options.machine)
    return _tell(options, said, print_faults)


def _memory_map(options: argparse.Namespace) -> int:
    from cluster.explain_map import explain_memory_map, print_memory_map

    said = explain_memory_map(options.preset, options.address)
    return _tell(options, said, print_memory_map)


def _stop_on_signals() -> None:
    """Raise ``Stopped`` at the first SIGINT or SIGTERM; a second one ends the process at once."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in _STATUS_OF_SIGNAL:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(_STATUS_OF_SIGNAL[signal.Signals(number)])

    for each in _STATUS_OF_SIGNAL:
        signal.signal(each, stop)


def _say(what: object, status: ExitStatus) -> int:
    line = one_line(what) if isinstance(what, BaseException) else what
    sys.stderr.write(f"pagefleet: {line}\n")
    return status
