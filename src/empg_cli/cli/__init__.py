"""The command line: the Typer app, Hydra's flags, and a module for each command. Nothing heavy is imported early."""
