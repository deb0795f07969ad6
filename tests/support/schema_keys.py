"""Every key of a run's configuration, with the choice that reads it: what the format of a run folder is about.

PYTHONPATH=src python tests/support/schema_keys.py > tests/fixtures/keys-of-format-N.txt     # from the repository
"""

from __future__ import annotations

from functools import cache

from empg_cli.config.keys import known_keys, readers
from empg_cli.config.schema import TrainConfig


@cache
def schema_keys() -> tuple[str, ...]:
    """`trainer.lr`, and `algo.credit.zeta if algo.credit.kind=empg`."""
    found = []
    for key in known_keys(TrainConfig):
        choices = [f"{key} if {choice}" for choice in readers(TrainConfig, key)]
        found += choices or [key]
    return tuple(found)


if __name__ == "__main__":
    print(*schema_keys(), sep="\n")
