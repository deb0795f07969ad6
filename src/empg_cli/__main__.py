"""`python -m empg_cli` and the console script `empg`."""

import sys


def main() -> None:
    from empg_cli.signals import caught, end_at_once_from_now

    try:
        with caught():  # from here on every signal ends in an exit code of its own
            _run()
    finally:
        end_at_once_from_now()


def _run() -> None:
    from signal import SIGINT

    from empg_cli.signals import asked, exit_code

    try:
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
    except KeyboardInterrupt:
        raise SystemExit(exit_code(asked() or SIGINT)) from None
    except SystemExit as end:
        if asked() and end.code == exit_code(SIGINT):  # Typer has one code for all
            raise SystemExit(exit_code(asked())) from None
        raise
    except Exception:
        if asked():  # what a signal has cut short, such as an import, fails in its own ways
            raise SystemExit(exit_code(asked())) from None
        raise


if __name__ == "__main__":
    main()
