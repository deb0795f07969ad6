"""`empg plan`, the preflight of `empg train`, and what a run records of it, by the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from empg_cli.config.location import groups
from empg_cli.config.plan import PlanConfig
from empg_cli.planning import hardware
from empg_cli.runs.facts import processor
from empg_cli.runs.run_file import read_run_file

Empg = Callable[..., Result]

FITS, TIGHT, REFUSED = "fits", "tight", "refused"
"""Tight: over the memory by no more than an estimate may be wrong."""
HARDWARE = ("cpu-8GB", "cpu-24GB", "1x24GB", "1x80GB", "8x80GB")
MODELS = {  # in the order of HARDWARE; docs/models.md has the same table
    "tiny": (FITS, FITS, FITS, FITS, FITS),
    "tiny-scratch": (FITS, FITS, FITS, FITS, FITS),
    "smollm2-135m": (FITS, FITS, FITS, FITS, FITS),
    "qwen2.5-0.5b": (REFUSED, FITS, FITS, FITS, FITS),
    "qwen2.5-1.5b": (REFUSED, REFUSED, REFUSED, FITS, FITS),
    "qwen2.5-7b": (REFUSED, FITS, FITS, FITS, FITS),
    "qwen3-0.6b": (REFUSED, FITS, FITS, FITS, FITS),
    "qwen3-1.7b": (REFUSED, REFUSED, REFUSED, FITS, FITS),
    "qwen3-4b": (REFUSED, REFUSED, REFUSED, TIGHT, TIGHT),
    "qwen3-8b": (REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    "llama3.2-1b": (REFUSED, TIGHT, TIGHT, FITS, FITS),
    "llama3.1-8b": (REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    "qwen2.5-32b": (REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
}
CASES = [(model, where, says) for model, row in MODELS.items() for where, says in zip(HARDWARE, row, strict=True)]


def planned(empg: Empg, *words: str, code: int = 0) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(empg("plan", *words, "--json", code=code).stdout)
    return shown


@pytest.mark.parametrize(("model", "where", "says"), CASES)
def test_every_preset_fits_or_is_refused(model: str, where: str, says: str, empg: Empg) -> None:
    shown = planned(empg, f"model={model}", f"plan.hardware={where}", code=2 if says == REFUSED else 0)
    assert (shown["fits"], shown["refused"]) == (says == FITS, says == REFUSED)
    assert shown["peak"]["bytes"] == max(sum(items.values()) for items in shown["phases"].values())


def test_the_table_has_every_preset_but_those_whose_path_is_the_users() -> None:
    assert set(groups()["model"]) - {"local"} == set(MODELS)


def test_the_page_of_models_has_the_same_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for model, codes in MODELS.items():
        assert f"| `{model}` | " + " | ".join(codes) + " |" in page


def test_here_looks_at_this_machine(empg: Empg) -> None:
    shown = planned(empg, "experiment=smoke")
    assert shown["hardware"]["memory"] > 10**8 and shown["fits"]
    assert shown["disk_free"] > 0
    assert 0 < shown["update_s"]["learning"] < 60
    assert list(Path().iterdir()) == []


def test_the_tables_name_what_is_there_and_mark_the_peak(empg: Empg) -> None:
    shown = empg("plan", "model=qwen2.5-1.5b", "plan.hardware=8x80GB").stdout
    for word in ("copies to compute with", "reference model", "optimiser state", "gradients", "keys and values",
                 "activations", "a checkpoint on the disk", "one of the 8 GPUs", "an estimate"):  # fmt: skip
        assert word in shown
    (together,) = (line for line in shown.splitlines() if line.startswith("together"))
    assert together.count("*") == 1


def test_what_cannot_fit_is_one_message_with_what_would(empg: Empg) -> None:
    words = ("model=smollm2-135m", "plan.hardware=cpu-8GB", "rollout.max_concurrent=0")
    result = empg("plan", *words, code=2)
    assert "error: smollm2-135m does not fit into the 8.0 GB of a machine with 8 GB: phase rollout" in result.stderr
    assert "rollout.max_concurrent=auto" in result.stderr and "Traceback" not in result.stderr
    ways = planned(empg, *words, code=2)["ways_out"]
    assert ways
    for way in ways:
        assert planned(empg, *words, *way)["fits"]


def test_a_model_for_several_gpus_says_what_it_would_need(empg: Empg) -> None:
    said = empg("plan", "model=qwen2.5-32b", "plan.hardware=8x24GB", code=2).stderr
    assert "uses one of the 8 GPUs" in said and "dist=node" in said
    said = empg("plan", "model=qwen2.5-32b", "plan.hardware=8x80GB", code=2).stderr
    assert "trainer.optimizer=adamw8bit model.lora.rank=32 rollout.max_context_tokens=1024" in said


def test_all_weights_of_7b_need_more_than_one_gpu_and_an_adapter_does_not(empg: Empg) -> None:
    full = planned(empg, "experiment=paper_7b", "plan.hardware=1x80GB", code=2)
    assert full["trained"] == full["parameters"]
    assert ["model.lora.rank=32"] in full["ways_out"]
    preset = planned(empg, "model=qwen2.5-7b", "plan.hardware=1x80GB")
    assert preset["trained"] == 28 * 32 * (4 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18_944))
    assert "reference model" not in preset["phases"]["score"]


@pytest.mark.parametrize(("where", "device"), [("cpu-8GB", "cuda"), ("1x24GB", "cpu")])
def test_a_device_that_the_hardware_lacks_is_refused(where: str, device: str, empg: Empg) -> None:
    said = empg("plan", f"plan.hardware={where}", f"trainer.device={device}", code=2).stderr
    assert f"trainer.device={device} is not read when plan.hardware={where}" in said


def test_eight_bits_are_a_quarter_of_the_moments(empg: Empg) -> None:
    whole, short = (planned(empg, "model=qwen2.5-1.5b", f"trainer.optimizer={kind}", "plan.hardware=1x80GB")
                    for kind in ("adamw", "adamw8bit"))  # fmt: skip
    ratio = short["phases"]["update"]["optimiser state"] / whole["phases"]["update"]["optimiser state"]
    assert ratio == pytest.approx((1 + 4 / 256) / 4)


def test_a_folder_says_its_shape_itself(empg: Empg, tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
              "intermediate_size": 128, "vocab_size": 1000, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    shown = planned(empg, "model=local", f"model.path={tmp_path / 'own'}", "plan.hardware=1x24GB")
    # embedding 64,000; two layers of 4 x 64 x 64 + 3 x 64 x 128 + 2 x 64; the last norm 64
    assert shown["parameters"] == 64_000 + 2 * (16_384 + 24_576 + 128) + 64
    unknown = empg("plan", "model=local", "model.path=owner/unheard-of", "plan.hardware=1x24GB", code=2)
    assert "knows the shape of model.path=owner/unheard-of" in unknown.stderr


@pytest.mark.parametrize("where", ["80GB", "0x80GB", "1x80", "cpu-0GB", "there"])
def test_hardware_that_is_none_is_refused(where: str, empg: Empg) -> None:
    said = empg("plan", f"plan.hardware={where}", code=2).stderr
    assert "plan.hardware" in said and "1x80GB" in said


def test_a_misspelt_key_is_named(empg: Empg) -> None:
    assert "plan.hardware" in empg("plan", "plan.hardwear=1x80GB", code=2).stderr


def test_named_hardware_is_planned_without_torch() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom empg_cli.cli.app import app\n"
        "result = CliRunner().invoke(app, ['plan', 'model=llama3.1-8b', 'plan.hardware=1x80GB'])\n"
        "assert result.exit_code == 2, result.output\nprint('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"


def test_every_key_of_training_can_be_planned_with() -> None:
    assert set(PlanConfig.model_fields) >= {"model", "benchmark", "algo", "rollout", "trainer", "logger", "seed"}


# --- the preflight of a run, and auto in it ---


def little(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """Let this machine have so much memory for a run."""
    monkeypatch.setattr(hardware, "available_memory", lambda: memory)
    monkeypatch.setattr(hardware, "resident_memory", lambda: 0)


def test_a_run_that_cannot_fit_is_refused_before_weights_are_loaded(
    empg: Empg, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    little(monkeypatch, 10**8)
    monkeypatch.setattr("empg_cli.experiment.load_policy", lambda *_, **__: pytest.fail("weights were loaded"))
    result = empg("train", *small, "run_dir=run", code=2)
    assert "does not fit into the 100.0 MB of this machine" in result.stderr
    assert not Path("run/metrics.jsonl").exists()
    monkeypatch.undo()


def test_a_run_says_what_it_takes_and_records_what_auto_stands_for(
    empg: Empg, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("rollout.max_concurrent=auto", "trainer.tokens_per_microbatch=auto")
    # the process, the rest of a rollout, and keys and values of two episodes: 90 % of this
    little(monkeypatch, 640_000_000)
    empg("train", *small, *words, "run_dir=run", "trainer.updates=1")
    settled = read_run_file(Path("run"))["settled"]
    assert read_run_file(Path("run"))["hardware"] == [processor()]
    assert 1 <= settled["rollout.max_concurrent"] <= 4
    assert settled["trainer.tokens_per_microbatch"] == 4096
    assert "memory: about" in Path("run/train.log").read_text()
    assert "max_concurrent: auto" in Path("run/config.yaml").read_text()

    little(monkeypatch, 8 * 10**9)
    empg("train", "--resume", "run", "trainer.updates=2")
    assert read_run_file(Path("run"))["settled"] == settled
    empg("train", *small, *words, "run_dir=more")
    assert read_run_file(Path("more"))["settled"]["rollout.max_concurrent"] == 4


def test_auto_changes_no_number_of_a_run(empg: Empg, small: tuple[str, ...]) -> None:
    empg("train", *small, "run_dir=plain")
    empg("train", *small, "rollout.max_concurrent=auto", "trainer.tokens_per_microbatch=auto", "run_dir=auto")
    plain, auto = (
        [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
        for run in ("plain", "auto")
    )
    for before, after in zip(plain, auto, strict=True):
        assert {key: value for key, value in before.items() if not key.startswith(("timing", "perf", "time"))} == {
            key: value for key, value in after.items() if not key.startswith(("timing", "perf", "time"))
        }


def test_an_evaluation_and_a_diagnosis_settle_auto_too(empg: Empg, small: tuple[str, ...]) -> None:
    empg("train", *small, "rollout.max_concurrent=auto", "trainer.tokens_per_microbatch=auto", "run_dir=run")
    assert json.loads(empg("eval", "run=run", "--json").stdout)["total"]["n"] == 4
    empg("diagnose", "run", "--episodes", "4", "--gradients", "2")
    empg("diagnose", "run", "--episodes", "4", "--gradients", "1")
    found = json.loads(Path("run/diagnostics/diagnosis.json").read_text())["gradients"]
    assert len(found["steps"]) == 1 and found["rank"] is None
