"""``pagefleet`` with fake members, as a program: what tests start, signal and kill."""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import cluster.run
from cluster.cli import run_command
from tests.cluster.fleets import BUILDER

if __name__ == "__main__":
    vars(cluster.run)["RunRequest"] = functools.partial(cluster.run.RunRequest, builder=BUILDER)
    sys.exit(run_command(sys.argv[1:]))
