"""Lay out the tiny ALFWorld agents of the studies that are not the shipped one.

python -m scripts.why.agents studies/agents 1250 1000    # out of git's history, at once
python -m scripts.why.agents studies/agents larger       # made anew: the shipped one took ten minutes
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from empg_cli.errors import UserError

EARLIER = {"1250": "2785f67", "1000": "3439de5"}
"""Step at which imitation was stopped -> a commit that shipped the agent. 1250 is the one that
docs/studies/alfworld-tiny.md trained, of other games and another expert. 1000 is of the games and the expert of today,
whose agent was stopped at 750. All have the same words and architecture."""
MADE = {
    "larger": [
        "model.arch.hidden_size=192",
        "model.arch.num_layers=4",
        "model.arch.num_heads=6",
        "model.arch.mlp_size=512",
    ],
    "window": ["rollout=window", "rollout.history=8"],
}
"""Name -> what scripts/make_tiny_agent.py is told beside what made the shipped agent."""
ROOT = Path(__file__).parents[2]
ASSETS = "src/empg_cli/assets/tiny-alfworld"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=list(EARLIER), metavar="NAME")
    arguments = parser.parse_args()
    known = [*EARLIER, *MADE]
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no agent is called {', '.join(unknown)}: there are {', '.join(known)}")
    try:
        for name in arguments.names:
            if name in MADE:
                make(arguments.out, name)
        lay_out(arguments.out, arguments.names)
    except UserError as error:
        parser.error(str(error))


def lay_out(out: Path, names: Iterable[str]) -> None:
    """Writes `out`/NAME for each earlier agent; what is there stays.

    Raises:
        UserError: an agent that is made anew is not there, or git does not know a commit.
    """
    for name in names:
        folder = out / name
        if name in MADE:
            if not is_made(folder):
                raise UserError(f"{folder} is not there: python -m scripts.why.agents {out} {name}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            if not (folder / file).exists():
                show = ["git", "-C", str(ROOT), "show", f"{EARLIER[name]}:{ASSETS}/{file}"]
                shown = subprocess.run(show, check=False, capture_output=True)
                if shown.returncode:
                    raise UserError(f"git does not know commit {EARLIER[name]} here: git fetch --unshallow")
                (folder / file).write_bytes(shown.stdout)


def make(out: Path, name: str) -> None:
    """Trains the agent `name` into `out`/NAME; one that is there stays.

    Raises:
        UserError: the script that does it ended with an error, which it has printed.
    """
    if not is_made(out / name):
        script = str(ROOT / "scripts" / "make_tiny_agent.py")
        stop = ["--benchmark", "alfworld", "--stop-at", "0.30"]
        command = [sys.executable, script, *stop, "--out", str(out / name), *MADE[name]]
        if subprocess.run(command, check=False).returncode:
            raise UserError(f"the agent {name} was not made: scripts/make_tiny_agent.py says why, above")


def is_made(folder: Path) -> bool:
    return (folder / "record.json").is_file()  # written last


if __name__ == "__main__":
    main()
