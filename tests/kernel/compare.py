"""Record workload files afresh on a real kernel, and run each on a simulated machine: do the counters agree?

    python -m tests.kernel.compare WORKLOAD.pf ... [--runs 1]

The second step of ``make kernel-check``. Exit status: 0 all agree; 1 some counter is off, or a machine did not
get to its end; 2 if something is wrong before a machine boots.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from node.check_report import Telling, check_files
from node.golden_file import GoldenError
from tests.kernel.errors import BootError, RecordError
from tests.kernel.record import Recorder
from tests.kernel.script import load_workload


def main(arguments: Sequence[str] | None = None) -> int:
    """Record and check what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel.compare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("workloads", nargs="+", type=Path, metavar="WORKLOAD.pf")
    parser.add_argument("--runs", type=int, default=1, help="boots of each case (default 1)")
    options = parser.parse_args(arguments)
    try:
        workloads = [load_workload(path) for path in options.workloads]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            recorder = Recorder(folder)
            paths = []
            for workload in workloads:
                golden = recorder.record(workload, max(options.runs, 1))
                path = folder / f"{workload.name}.json"
                path.write_text(json.dumps(golden))
                paths.append(path)
            return check_files(paths, sys.stdout.write, Telling())
    except RecordError as error:
        sys.stderr.write(f"compare: {error}\n")
        return 2
    except (BootError, GoldenError) as error:
        sys.stderr.write(f"compare: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
