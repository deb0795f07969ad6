"""A study as a loop: two algorithms, a few seeds, and whether the difference is more than chance.

About a minute on one core, in a setting that is much too small to say anything about the algorithms. From the command
line `empg ablate` does the same, goes on where it was stopped, and draws the report (docs/ablations.md).
"""

from pathlib import Path

from empg_cli.config import load
from empg_cli.loop import train
from empg_cli.stats.intervals import t_interval
from empg_cli.stats.paired import paired_difference, pairs_for_p

SEEDS = range(4)
UPDATES = 4
SETTING = [  # what both have in common: the small agent that ships, on short games of two kinds
    "experiment=demo",
    "benchmark.task_types=[pick_and_place_simple, look_at_obj_in_light]",
    "benchmark.max_steps=20",
    "benchmark.eval_tasks=40",
    f"trainer.updates={UPDATES}",
    "trainer.tasks_per_update=4",
    "trainer.eval_before=false",
    "trainer.eval_every=0",
    "logger.console=quiet",
    "logger.wandb.mode=disabled",
    "resume=restart",  # set aside what an earlier start has left
]

# %% Train: each run ends with an evaluation. A seed plays the same tasks with the same random numbers in both arms

success = {"grpo": [], "empg": []}
for algo, rates in success.items():
    for seed in SEEDS:
        cfg = load([*SETTING, f"algo={algo}", f"seed={seed}"])
        rates.append(train(cfg, Path("runs/study") / f"{algo}-s{seed}").success_rate)

# %% Compare: a t interval over seeds for each, and the differences paired by seed

for algo, rates in success.items():
    mean, low, high, n = t_interval(rates)
    each = ", ".join(f"{rate:.1%}" for rate in rates)
    print(f"{algo}         {mean:6.1%}  [{low:6.1%}, {high:6.1%}]  {n} seeds: {each}")

difference = paired_difference(success["empg"], success["grpo"])
interval = "equal in all seeds" if difference.low is None else f"[{difference.low:+6.1%}, {difference.high:+6.1%}]"
print(f"empg - grpo  {difference.mean:+5.1%}  {interval}  p = {difference.test.p_value:.3f} (sign flips)")
print(f"p cannot go below {difference.test.floor:.3f} here; below 0.05 it takes {pairs_for_p(0.05)} seeds that differ")
