"""`python -m empg_cli` and the console script `empg`."""


def main() -> None:
    from empg_cli.cli import app

    app()


if __name__ == "__main__":
    main()
