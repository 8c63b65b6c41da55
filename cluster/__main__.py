"""``pagefleet`` and ``python -m cluster``: the same program."""

import sys

from cluster.cli import run_command


def main() -> None:
    """Run the command line and end the process with its exit status."""
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
