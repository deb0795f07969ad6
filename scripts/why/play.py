"""Play the studies of docs/claims.md one after the other, and keep what they measured.

    git checkout COMMIT                          # the `commit` in a study's plan.json: cells of other code are refused
    python -m scripts.why.play                   # all that is left, in order; Ctrl-C keeps what is done
    python -m scripts.why.play fair controls     # some
    python -m scripts.why.play --pack            # only write the records, as they stand

Each study lies in `--out`/NAME, and is laid out there from `--records`/NAME.tar.xz if it is not there yet, so a fresh
checkout goes on where another one stopped. Run it on two terminals to use two cores: every cell is played once.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from empg_cli.errors import UserError
from empg_cli.runs.study import read_study
from scripts.why.agents import EARLIER, MADE, lay_out
from scripts.why.records import pack, unpack

COMMON = [
    "trainer.eval_before=false",
    "trainer.eval_every=0",
    "trainer.checkpoint_every=0",
    "trainer.threads=1",
    "logger=none",
    "logger.console=quiet",
]
ALFWORLD = ["experiment=demo", "trainer.updates=12", "trainer.tasks_per_update=8"]


def agent(name: str) -> list[str]:
    """One of scripts/why/agents.py."""
    return ["model.init=pretrained", f"model.path={{out}}/agents/{name}"]


GAINING = agent("1250")
WAIT_S, LOOKS = 20.0, 30
"""How long to wait for others, and how often, before their cells are asked for again: they may have been stopped."""
FRESH = list(range(5, 25))
"""Seeds that no tuning has seen, the same as `ablation.confirms` takes."""
FRESHER = list(range(25, 45))
"""Nor a confirmation: arms of the main comparisons have played on `FRESH`."""
SMALL_TUNING = [
    "ablation=fair",
    "ablation.tuning.draws=8",
    "ablation.tuning.seed=0",  # each rate with a higher bonus than the shipped one and without, none of the defaults
    "ablation.tuning.space={{trainer.lr: [0.000125, 0.00025, 0.0005, 0.001], algo.advantage.penalty: [episode]}}",
    "seeds=3",
]
"""Lower rates: both recipes say that higher ones harm (docs/tiny-agent.md). No `penalty=step`: ruinous on ALFWorld."""
WEBSHOP = ["experiment=webshop", "trainer.updates=15"]
DEEPSEARCH = ["experiment=deepsearch"]
STUDIES = {
    "fair": [*ALFWORLD, "ablation=fair", "seeds=5"],
    "fair-confirmed": [
        *ALFWORLD,
        "ablation=fair",
        "ablation.tuning=null",
        "ablation.confirms={out}/fair",
        "seeds=20",
        "benchmark.split=valid_unseen",
    ],
    **{
        f"agent-{step}": [
            *ALFWORLD,
            "ablation=fair",
            "ablation.tuning=null",
            "seeds=10",
            *agent(step),
        ]
        for step in EARLIER
    },
    "fair-1250": [
        *ALFWORLD,
        *GAINING,
        "ablation=fair",
        "ablation.tuning.draws=12",
        "ablation.tuning.seed=4",  # four draws of each rate, six of each statistics, none of the defaults
        "ablation.tuning.space={{trainer.lr: [0.00025, 0.0005, 0.001], algo.advantage.penalty: [episode]}}",
        "seeds=3",
    ],
    "fair-1250-confirmed": [
        *ALFWORLD,
        *GAINING,
        "ablation=fair",
        "ablation.tuning=null",
        "ablation.confirms={out}/fair-1250",
        "seeds={fresh}",
        "benchmark.split=valid_unseen",
    ],
    "fair-official": [
        *ALFWORLD,
        "ablation=fair",
        "ablation.tuning=null",
        "ablation.confirms={out}/fair",
        "seeds=20",
        "benchmark.split=valid_unseen",
        "benchmark.data_dir={data}",
    ],
    "controls": [*ALFWORLD, *GAINING, "ablation=controls", "seeds=20"],
    "main-alfworld-1250": [
        *ALFWORLD,
        *GAINING,
        "ablation=main_alfworld_1250",
        "seeds={fresher}",
        "benchmark.split=valid_unseen",
    ],
    "main-alfworld": [*ALFWORLD, "ablation=main_alfworld", "seeds={fresher}", "benchmark.split=valid_unseen"],
    "fair-webshop": [*WEBSHOP, *SMALL_TUNING, "benchmark.split=eval", "benchmark.eval_tasks=300"],
    "fair-deepsearch": [
        *DEEPSEARCH,
        *SMALL_TUNING,
        "ablation.variants.empg=['algo=empg','algo.credit.zeta=0.1']",  # the paper's value for this benchmark
        "benchmark.world.seed=1",  # of each world there is one set of test questions: those of world 0 choose nothing
    ],
    "main-webshop": [*WEBSHOP, "ablation=main_webshop", "seeds={fresher}"],
    "main-deepsearch": [*DEEPSEARCH, "ablation=main_deepsearch", "seeds={fresher}"],
    "larger": [
        *ALFWORLD,
        *agent("larger"),
        "ablation=fair",
        "ablation.tuning.draws=6",
        "ablation.tuning.seed=0",  # each pair of rate and statistics once, none of the defaults
        "ablation.tuning.space={{trainer.lr: [0.00025, 0.0005, 0.001], algo.advantage.penalty: [episode]}}",
        "seeds=3",
    ],
    "larger-confirmed": [
        *ALFWORLD,
        *agent("larger"),
        "ablation=fair",
        "ablation.tuning=null",
        "ablation.confirms={out}/larger",
        f"seeds={FRESH[:10]}",
        "benchmark.split=valid_unseen",
    ],
    "window": [
        *ALFWORLD,
        *agent("window"),
        *MADE["window"],
        "ablation=fair",
        "ablation.tuning=null",
        "seeds=10",
    ],
    "table5": [*ALFWORLD, "ablation=paper_table5", "seeds=10"],
}
"""In the order in which they are played; a confirmation follows what it confirms."""


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("studies"))
    parser.add_argument("--records", type=Path, default=Path("docs/studies/records"))
    parser.add_argument("--data", type=Path, help="official ALFWorld games; without them no *-official is played")
    parser.add_argument("--pack", action="store_true", help="play nothing, write the records of what is there")
    parser.add_argument("--plan", action="store_true", help="play nothing, say what there is to play")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in STUDIES]:
        parser.error(f"no study is called {', '.join(unknown)}")
    names = arguments.names or list(STUDIES)
    if arguments.pack:
        for name in names:
            keep(arguments.out / name, arguments.records / f"{name}.tar.xz")
        return 0
    try:
        lay_out(arguments.out / "agents", {agent for name in arguments.names for agent in agents_of(name)})
    except UserError as error:
        parser.error(str(error))
    for name in names:
        if why := lacks(name, arguments.out, arguments.data):
            print(f"{name}: left out, as {why}")
        elif code := play(name, arguments):
            return code
    return 0


def lacks(name: str, out: Path, data: Path | None) -> str | None:
    """What a study needs and is not there."""
    if name.endswith("-official") and not data:
        return "it needs the official games (--data FOLDER)"
    if (benchmark := name.removeprefix("main-")) != name and not arms_of(benchmark).is_file():
        made = f"python -m scripts.why.main_arms {out}/fair-{benchmark} {benchmark} > {arms_of(benchmark)}"
        return f"its arms follow from fair-{benchmark}: {made}"
    try:
        lay_out(out / "agents", agents_of(name))
    except UserError as error:
        return str(error)
    return None


def arms_of(benchmark: str) -> Path:
    """What scripts/why/main_arms.py prints."""
    return Path("conf", "ablation", f"main_{benchmark.replace('-', '_')}.yaml")


def play(name: str, arguments: argparse.Namespace) -> int:
    """Returns what `empg ablate` has ended with."""
    folder, archive = arguments.out / name, arguments.records / f"{name}.tar.xz"
    if archive.is_file():
        unpack(archive, folder)
    words = command(name, arguments.out, data=arguments.data, plan=arguments.plan)
    while not (code := run(words)) and not arguments.plan and not is_finished(folder):
        wait_for(folder)
    if not arguments.plan:
        keep(folder, archive)
    return code


def keep(folder: Path, archive: Path) -> None:
    if (folder / "study.json").is_file():
        print(f"{archive}: {pack(folder, archive)} finished cells")


def is_finished(folder: Path) -> bool:
    """Not while another command plays the last of its cells, which a confirmation needs."""
    return not read_study(folder).pending()


def wait_for(folder: Path) -> None:
    for _ in range(LOOKS):
        time.sleep(WAIT_S)
        if is_finished(folder):
            return


def agents_of(name: str) -> list[str]:
    return [Path(word).name for word in STUDIES[name] if word.startswith("model.path=")]


def run(words: list[str]) -> int:
    """Until it has ended by itself, also after Ctrl-C, which a terminal sends to it as well: it saves what it plays."""
    with subprocess.Popen(words) as child:
        interrupts = signal.signal(signal.SIGINT, lambda *_: None)
        ends = signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGINT, interrupts)
            signal.signal(signal.SIGTERM, ends)


def command(name: str, out: Path, *, data: Path | None = None, plan: bool = False) -> list[str]:
    words = [word.format(out=out, data=data, fresh=FRESH, fresher=FRESHER) for word in STUDIES[name]]
    shown = ["--plan"] if plan else []
    return [sys.executable, "-m", "empg_cli", "ablate", *words, f"run_dir={out / name}", *COMMON, *shown]


if __name__ == "__main__":
    sys.exit(main())
