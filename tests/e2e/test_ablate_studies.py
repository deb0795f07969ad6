"""Real studies: killed and finished, on every benchmark, and their tables recomputed from the runs' own files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.recompute import check_all_five_formats

Empg = Callable[..., Result]
Small = tuple[str, ...]

VARIANTS = ["grpo", "scaling", "empg"]
STUDY = "name: three\nmetric: eval/success_rate\nbase: grpo\nvariants:\n" + "".join(
    f"  {name}: [{words}]\n"
    for name, words in {"grpo": "algo=grpo", "scaling": "algo=empg, algo.credit.zeta=0.0", "empg": "algo=empg"}.items()
)
WORDS = (
    *("ablate", "--config-dir", "mine", "ablation=three", "seeds=3", "run_dir=study", "experiment=smoke", "model=tiny"),
    *("benchmark.max_steps=20", "benchmark.eval_tasks=8", "trainer.updates=1", "trainer.eval_before=false"),
    *("trainer.lr=0.001", "trainer.lr_warmup=0", "logger.wandb.mode=disabled", "logger.console=quiet"),
)
PATIENCE_S = 600


def pair_of_studies(folder: Path) -> None:
    (folder / "mine" / "ablation").mkdir(parents=True)
    (folder / "mine" / "ablation" / "three.yaml").write_text(STUDY)


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.long
def test_a_killed_study_finishes_without_repeating_a_cell_and_its_tables_are_right(empg: Empg) -> None:
    pair_of_studies(Path())
    study = Path("study")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "empg_cli", *WORDS], env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: (study / "scaling-s0" / "config.yaml").exists(), process)
    os.kill(process.pid, signal.SIGKILL)  # in the middle of the second cell; nothing can be saved
    process.wait()
    done = {path: path.read_bytes() for path in study.glob("grpo-s0/*") if path.is_file()}
    assert json.loads(done[study / "grpo-s0" / "summary.json"])["exit_code"] == 0
    assert not (study / "ablation.json").exists()

    again = empg(*WORDS)
    assert "1 of 9 cells are done already" in again.stderr
    assert {path: path.read_bytes() for path in done} == done
    assert "INCOMPLETE" not in (study / "ablation.md").read_text()
    expected = check_all_five_formats(study, VARIANTS, "grpo", "eval/success_rate")
    assert any(0 < value < 1 for row in expected.values() for value in row.values.values()), "numbers worth checking"

    # another metric of the same runs: new tables, no new cell
    before = {path: path.stat().st_mtime_ns for path in study.glob("*/metrics.jsonl")}
    other = empg(*WORDS, "ablation.metric=actor/entropy")
    assert "9 of 9 cells are done already" in other.stderr
    check_all_five_formats(study, VARIANTS, "grpo", "actor/entropy")
    assert {path: path.stat().st_mtime_ns for path in study.glob("*/metrics.jsonl")} == before


SMOKE = {
    "webshop": ("benchmark.num_products=40", "benchmark.eval_tasks=3"),
    "deepsearch": (
        *("benchmark.world.scale=0.1", "benchmark.world.train_questions=20", "benchmark.world.test_questions=2"),
        *("benchmark.eval_tasks=3", "benchmark.cache_dir=cache"),
    ),
}


@pytest.mark.parametrize("benchmark", list(SMOKE))
def test_a_small_study_on_every_other_benchmark(empg: Empg, small: Small, benchmark: str) -> None:
    model = [word for word in small if word.startswith("model")]
    result = empg(
        *("ablate", "ablation=dapo_empg", "ablation.metric=actor/entropy", "seeds=2", "run_dir=study"),
        *(f"benchmark={benchmark}", *SMOKE[benchmark], "benchmark.max_steps=3", *model),
        *("algo.group_size=2", "algo.sampling.max_resamples=1", "trainer.updates=1", "trainer.tasks_per_update=2"),
        *("trainer.minibatches=1", "trainer.eval_before=false", "trainer.checkpoint_every=0"),
        *("logger.wandb.mode=disabled", "logger.console=quiet"),
    )
    check_all_five_formats(Path("study"), ["dapo", "dapo_empg"], "dapo", "actor/entropy")
    assert f"benchmark: {benchmark}" in result.stdout and "data: generated" in result.stdout
    rows = [json.loads(line) for line in Path("study/dapo-s1/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["eval/n"] == 3


def test_a_fair_baseline_is_tuned_and_confirmed_as_the_page_says(empg: Empg) -> None:
    """The two commands of docs/ablations.md, with one draw, one seed and small runs."""
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    tune, confirm = [
        line.removeprefix("empg ").split() for line in page.splitlines() if line.startswith("empg ablate ablation=fair")
    ]
    small = [
        word for word in WORDS[5:] if not word.startswith(("run_dir=", "seeds=", "trainer.updates=", "trainer.lr="))
    ]

    def shortened(words: list[str], seeds: int) -> list[str]:
        kept = [word for word in words if not word.startswith(("seeds=", "experiment=", "trainer.updates="))]
        return [*kept, *small, f"seeds={seeds}", "trainer.updates=1"]

    answer = empg(*shortened(tune, 1), "ablation.tuning.draws=1")
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in Path("tuning").glob("*-s*")) == [
        f"{arm}-0{number}-s0" for arm in ("empg", "grpo") for number in (0, 1)
    ]
    assert "TUNING:" in Path("tuning/ablation.md").read_text()

    answer = empg(*shortened(confirm, 1))
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in Path("confirmed").glob("*-s*")) == ["empg-s1", "grpo-s1"]
    table = Path("confirmed/ablation.md").read_text()
    digest = json.loads(Path("confirmed/plan.json").read_text())["sha256"]
    assert "Settings tuned in tuning by eval/success_rate, 2 settings an arm, seeds 0 (plan: sha256 " in table
    assert f"plan: sha256 {digest[:12]}" in table
    assert "before the first run" in table
