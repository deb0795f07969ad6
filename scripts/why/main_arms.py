"""The arms of the main comparison, from a finished tuning: prints conf/ablation/main_BENCHMARK.yaml.

    python -m scripts.why.main_arms studies/fair alfworld > conf/ablation/main_alfworld.yaml

Nothing is chosen here by hand. `grpo` is the best of GRPO's settings with at most the shipped entropy bonus,
`grpo-entropy` the best of the others, and the better of the two is the base; `empg` is the best of EMPG's settings,
`permuted` that one with its weights dealt out at random. What nobody has tuned takes over the settings of what it is
nearest to: DAPO, HGPO and GraphGPO those of the base, DAPO with EMPG those of `empg`. On Deep Search the two parts of
EMPG are played apart too, for what its paper says of known and unknown questions.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.runs.study import Study
from empg_cli.studies.comparison import compare
from empg_cli.studies.tuning import winners

SHIPPED_BONUS = 0.001
GRAPHGPO = {
    "webshop": ["algo.advantage.decay=0.2"],  # its paper's, on this benchmark
    "deepsearch": ["algo.advantage.goal=1.0"],  # benchmark.success_reward
}
Arms = dict[str, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("tuning", type=Path, help="folder of the finished tuning")
    parser.add_argument("benchmark")
    arguments = parser.parse_args()
    try:
        arms, base = main_arms(arguments.tuning, arguments.benchmark)
    except UserError as error:
        parser.error(str(error))
    sys.stdout.write(as_yaml(arguments.benchmark, arms, base))


def main_arms(folder: Path, benchmark: str) -> tuple[Arms, str]:
    """Variant -> overrides, and the base. Raises ConfigError, as `winners` does, where arms have not had the same
    budget."""
    study, best = winners(folder)
    plain = best_of(study, "grpo", lambda bonus: bonus <= SHIPPED_BONUS)
    entropy = best_of(study, "grpo", lambda bonus: bonus > SHIPPED_BONUS)
    empg, grpo = (list(best[arm].overrides[1:]) for arm in ("empg", "grpo"))
    return arms_of(plain, entropy, grpo, empg, benchmark), "grpo" if grpo == plain else "grpo-entropy"


def arms_of(plain: list[str], entropy: list[str], grpo: list[str], empg: list[str], benchmark: str) -> Arms:
    """
    Args:
        plain: GRPO's best words without a higher entropy bonus, `entropy` those with one, `grpo` the better of the two.
        empg: EMPG's best words.
    """
    without_statistics = [word for word in grpo if not word.startswith("algo.advantage.statistics=")]
    arms = {
        "grpo": ["algo=grpo", *plain],
        "grpo-entropy": ["algo=grpo", *entropy],
        "empg": ["algo=empg", *empg],
        "permuted": ["algo=empg", *empg, "algo.credit.control=permuted"],
        "dapo": ["algo=dapo_kl", *grpo],
        "dapo-empg": ["algo=dapo_empg", *empg],
        "hgpo": ["algo=hgpo", *without_statistics],
        "graphgpo": ["algo=graphgpo", *grpo, *GRAPHGPO.get(benchmark, [])],
    }
    if benchmark == "deepsearch":
        without_zeta = [word for word in empg if not word.startswith("algo.credit.zeta=")]
        arms["scaling"] = ["algo=empg", *without_zeta, "algo.credit.zeta=0.0"]
        arms["bonus"] = ["algo=empg", *empg, "algo.credit.k=0.0"]
    return arms


def best_of(study: Study, arm: str, has: Callable[[float], bool]) -> list[str]:
    """The drawn words of the arm's best setting among those whose entropy bonus `has`, the first drawn among equals."""
    comparison = compare(study)
    assert comparison is not None
    rows = {row.variant: row for row in comparison.rows}

    def mean(variant: str) -> float:
        return round(math.fsum(run.value for run in rows[variant].runs) / len(rows[variant].runs), 12)

    found = [name for name in study.variants if study.arms[name] == arm and has(bonus_of(study.settings[name]))]
    return list(rows[max(found, key=mean)].overrides[1:])


def bonus_of(settings: Mapping[str, Any]) -> float:
    return float(settings["algo"]["loss"]["entropy_coef"])


def as_yaml(benchmark: str, arms: Mapping[str, list[str]], base: str) -> str:
    lines = [
        f"# The main comparison on {benchmark}, each arm with the settings that did best in the tuning. Made by",
        "# scripts/why/main_arms.py, which says which; docs/studies/why-empg.md says what is asked.",
        f"name: main_{benchmark}",
        "metric: eval/success_rate",
        f"base: {base}",
        "variants:",
    ]
    return "\n".join([*lines, *(f"  {name}: [{', '.join(words)}]" for name, words in arms.items())]) + "\n"


if __name__ == "__main__":
    main()
