"""``python -m tests.oracle defaults|matrix [TYPE ...]|check``, in an environment that has torch and transformers."""

from __future__ import annotations

import sys


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit status."""
    match arguments:
        case ["defaults"]:
            from tests.oracle import make_defaults

            make_defaults.main()
        case ["matrix", *types]:
            from tests.oracle import matrix

            matrix.main(types)
        case ["check"]:
            from tests.oracle import check

            return check.main()
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
