"""`python -m empg_cli` and the console script `empg`."""

import sys


def main() -> None:
    from empg_cli.invocation import remember
    from empg_cli.observe.terminal import Forgiving

    sys.stderr = Forgiving(sys.stderr)
    try:
        remember()
    except FileNotFoundError:
        print("error: the folder you are in is gone; change to one that is there", file=sys.stderr)
        sys.exit(2)
    from empg_cli.cli.app import app  # its help texts hold commands

    app()


if __name__ == "__main__":
    main()
