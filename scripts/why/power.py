"""How often the rules of scripts/why/predictions.py decide, and what, in studies of 20 seeds that are drawn at random.

    python -m scripts.why.power

Arms are normal, so that the difference of two has the sd of `SPREADS`. Where the mechanism is **true**, the mean's
part carries 40 % of what the scaling gains, as it does of entropy in one step, nothing is gained with entropies that no
sampled word is in, and scaling successes alone loses as much as the mean's part gains. Where it is **false**, entropy
of any kind gains all, centred before or after, and successes alone half. A t test stands in for the sign-flip test.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from empg_cli.stats.paired import holm
from scripts.why.predictions import GAIN, PRIMARY, decided

SPREADS = (6.7, 7.9)
"""Points between pairs: of `agent-1250`, and of the pilot."""
GAINS = (0.0, 3.0, 5.0, 8.5, 10.4)
"""Points of `scaling` on `center`: of the tuned agent at the lower end, of the untuned one at the upper."""
SEEDS = 20
SAID = {"No gain": "no gain seen", "The mechanism is r": "refuted", "The mechanism is s": "supported"}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--studies", type=int, default=400, help="drawn for each line")
    arguments = parser.parse_args()
    names = [*SAID.values(), "neither"]
    print("\n".join([f"| mechanism | sd | gain | {' | '.join(names)} |", "|---|---:|---:|" + "---:|" * len(names)]))
    for is_true in (True, False):
        for spread in SPREADS:
            for gain in GAINS:
                found = decisions(gain, spread, is_true, arguments.studies)
                shares = " | ".join(f"{100 * found[name] / arguments.studies:.0f} %" for name in names)
                print(f"| {'true' if is_true else 'false'} | {spread} | {gain} | {shares} |", flush=True)


def decisions(gain: float, spread: float, is_true: bool, studies: int, seed: int = 0) -> Counter[str]:
    """What is decided in `studies` studies; gain and spread in points."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(studies):
        drawn = {arm: rng.normal(mean, spread / 2**0.5, SEEDS) / 100 for arm, mean in means_of(gain, is_true).items()}
        values = {arm: dict(enumerate(own.tolist())) for arm, own in drawn.items()}
        differences = {prediction: prediction.differences(values) for prediction in (*PRIMARY, GAIN)}
        raw = [float(stats.ttest_1samp(differences[prediction], 0).pvalue) for prediction in PRIMARY]
        said = decided(differences, dict(zip(PRIMARY, holm(raw), strict=True)))
        found[next((name for start, name in SAID.items() if said.startswith(start)), "neither")] += 1
    return found


def means_of(gain: float, is_true: bool) -> dict[str, float]:
    part = 0.4 * gain
    if is_true:
        own = {"bias-only": part, "center-first": gain - part, "first-token": 0.0, "positive": -part}
    else:
        own = {"bias-only": 0.0, "center-first": gain, "first-token": gain, "positive": gain / 2}
    return {"center": 0.0, "scaling": gain, **own}


if __name__ == "__main__":
    main()
