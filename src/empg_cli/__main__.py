"""`python -m empg_cli` and the console script `empg`."""


def main() -> None:
    from empg_cli.invocation import remember

    remember()
    from empg_cli.cli.app import app  # its help texts hold commands

    app()


if __name__ == "__main__":
    main()
