"""A run that trains an adapter: straight, resumed, evaluated, exported; and the export of a run that trains all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli import config
from empg_cli.model.loading import load_folder, load_to_play
from empg_cli.model.policy import Policy
from empg_cli.runs.config_file import saved_config
from empg_cli.runs.manifest import write_manifest
from empg_cli.runs.rows import without_wall_clock
from tests.e2e.conftest import Empg, invoke

peft = pytest.importorskip("peft", reason="peft is not installed (pip install empg-cli[lora])")

CPU = torch.device("cpu")
WORDS = (
    *("experiment=smoke", "model=tiny", "logger.wandb.mode=disabled", "trainer.device=cpu"),
    *(
        "model.lora.rank=4",
        "trainer.lr=2e-3",
        "trainer.updates=4",
        "trainer.eval_every=2",
        "trainer.checkpoint_every=2",
    ),
    *("trainer.warm_start.steps=2", "trainer.warm_start.batch_size=2", "trainer.keep_checkpoints=3"),
    *("algo.loss.kl_coef=0.1", "model.gradient_checkpointing=true"),
)


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        invoke("train", *WORDS, f"run_dir={folder / 'run'}")
    return folder / "run"


def checkpoint(run: Path, update: int) -> Path:
    return run / "checkpoints" / f"step-{update:06d}"


def rows(run: Path) -> list[dict[str, Any]]:
    return [without_wall_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = policy.model(torch.arange(4, 60)[None]).logits
    return found


def test_a_resumed_run_is_the_straight_run(lora_run: Path, tmp_path: Path) -> None:
    """Bit for bit, though the warm start behind its reference is made again."""
    killed = tmp_path / "killed"
    shutil.copytree(lora_run, killed)
    shutil.rmtree(checkpoint(killed, 4))
    (killed / "evaluations" / "update-000004.json").unlink()
    invoke("train", *WORDS, f"run_dir={killed}", "resume=auto")
    assert rows(killed) == rows(lora_run)
    assert [row["update"] for row in rows(killed)] == [0, 1, 2, 3, 4]
    for name in ("model/adapter_model.safetensors", "model/adapter_config.json", "model/base.json", "optimizer.pt"):
        assert (checkpoint(killed, 4) / name).read_bytes() == (checkpoint(lora_run, 4) / name).read_bytes(), name


def test_the_adapter_learns_and_the_reference_stays_where_the_warm_start_left_it(lora_run: Path) -> None:
    kl = [row["actor/kl_loss"] for row in rows(lora_run)[1:]]
    assert kl[0] == pytest.approx(0, abs=1e-6)  # one optimiser step an update: the first is taken at the reference
    assert kl[1] > 1e-6
    first, last = (checkpoint(lora_run, update) / "model" / "adapter_model.safetensors" for update in (2, 4))
    assert first.read_bytes() != last.read_bytes()
    assert not (checkpoint(lora_run, 4) / "model" / "model.safetensors").exists()


def test_run_json_names_the_base_and_runs_of_other_seeds_have_the_same(lora_run: Path) -> None:
    facts = json.loads((lora_run / "run.json").read_text())
    base = json.loads((checkpoint(lora_run, 4) / "model" / "base.json").read_text())
    assert facts["weights"] == facts["model"]["base"] == base["digest"]
    assert facts["model"]["digest"] != base["digest"]
    assert facts["versions"]["peft"] == peft.__version__


def test_an_evaluation_plays_the_adapter_as_the_run_did(empg: Empg, lora_run: Path) -> None:
    empg("eval", f"run={lora_run}", "run_dir=eval")
    own = json.loads((lora_run / "evaluations" / "update-000004.json").read_text())
    assert json.loads(Path("eval/evaluation.json").read_text())["tasks"] == own["tasks"]
    earlier = empg("eval", f"run={lora_run}", "checkpoint=2", "run_dir=earlier", "--json")
    digests = [json.loads(Path(name, "evaluation.json").read_text())["policy"] for name in ("eval", "earlier")]
    assert digests[0]["digest"] != digests[1]["digest"]
    assert digests[0]["base"] == digests[1]["base"]
    assert earlier.exit_code == 0


def test_an_evaluation_on_other_weights_is_refused(empg: Empg, lora_run: Path) -> None:
    shutil.copytree(lora_run, "run")
    path = checkpoint(Path("run"), 4) / "model" / "base.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["digest"], "0123456789abcdef"))
    (path.parents[1] / "manifest.json").unlink()
    write_manifest(path.parents[1])
    refused = empg("eval", "run=run", "run_dir=eval", code=2)
    assert "was trained on the weights of" in refused.stderr
    assert "0123456789abcdef" in refused.stderr


def test_an_export_is_a_plain_model_that_computes_the_same(empg: Empg, lora_run: Path) -> None:
    shown = empg("export", f"run={lora_run}", "out=plain")
    assert "step-000004 -> plain" in shown.stdout
    assert {path.name for path in Path("plain").iterdir()} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    cfg = saved_config(lora_run)
    played = load_to_play(checkpoint(lora_run, 4) / "model", cfg.model, "alfworld", CPU)
    plain = load_folder("plain", dtype="float32", device=CPU)
    base = load_folder(str(json.loads((checkpoint(lora_run, 4) / "model/base.json").read_text())["path"]),
                       dtype="float32", device=CPU)  # fmt: skip
    torch.testing.assert_close(logits(plain).softmax(-1), logits(played).softmax(-1), atol=1e-5, rtol=0)
    assert (logits(plain) - logits(base)).abs().max() > 1e-2
    # Logits go up to 30, where float32 rounds by as much: with longer sums only the weights' own rounding is left.
    for policy in (plain, played):
        policy.model.double()
    torch.testing.assert_close(logits(plain), logits(played), atol=1e-5, rtol=0)
    assert not any(name.startswith(".tmp") for name in map(str, Path().iterdir()))
    empg("eval", "model=local", "model.path=plain", "model.prompt=compact", "model.dtype=float32",
         "benchmark.eval_tasks=1", "run_dir=eval", "rollout=transcript", "rollout.max_new_tokens=6",
         "rollout.max_context_tokens=2048")  # fmt: skip


def test_an_export_may_be_shorter_earlier_or_the_adapter_alone(empg: Empg, lora_run: Path) -> None:
    empg("export", f"run={lora_run}", "out=short", "dtype=bfloat16")
    shorter = load_folder("short", dtype="bfloat16", device=CPU)
    assert json.loads(Path("short/config.json").read_text())["dtype"] == "bfloat16"
    exact = load_to_play(checkpoint(lora_run, 4) / "model", saved_config(lora_run).model, "alfworld", CPU)
    name = "model.layers.0.mlp.up_proj"
    layer = exact.model.get_submodule(name)
    merged = layer.base_layer.weight + layer.get_delta_weight("default")
    assert torch.equal(shorter.model.get_submodule(name).weight, merged.bfloat16())  # rounded once, after the sum
    empg("export", f"run={lora_run}", "out=earlier", "checkpoint=2")
    assert Path("earlier/model.safetensors").read_bytes() != Path("short/model.safetensors").read_bytes()
    empg("export", f"run={lora_run}", "out=apart", "adapter=true", "checkpoint=2")
    for file in (checkpoint(lora_run, 2) / "model").iterdir():
        assert Path("apart", file.name).read_bytes() == file.read_bytes()


def test_a_run_that_trains_all_weights_is_exported_too(empg: Empg, finished_run: Path) -> None:
    empg("export", f"run={finished_run}", "out=same")
    kept = checkpoint(finished_run, 2) / "model" / "model.safetensors"
    assert Path("same/model.safetensors").read_bytes() == kept.read_bytes()
    empg("export", f"run={checkpoint(finished_run, 1)}", "out=short", "dtype=bfloat16")
    assert Path("short/model.safetensors").stat().st_size < 0.6 * kept.stat().st_size


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out=new"], "run: must name the folder of a run"),
        (["run=RUN"], "out"),
        (["run=RUN", "out=new", "dtype=float16"], "dtype"),
        (["run=RUN", "out=new", "adapter=maybe"], "adapter"),
        (["run=RUN", "out=new", "adapter=true"], "holds no adapter"),
        (["run=RUN", "out=new", "adapter=true", "dtype=bfloat16"], "dtype: is not read when adapter=true"),
        (["run=RUN", "out=new", "checkpoint=7"], "has no checkpoint of update 7"),
        (["run=RUN", "out=new", "chekpoint=1"], "did you mean checkpoint"),
        (["run=RUN", "out=full"], "is there already"),
        (["run=RUN", "out=new", "seed=3"], "seed: is not read by empg export"),
        (["run=RUN", "out=new", "benchmark.max_steps=3"], "benchmark.max_steps: is not read by empg export"),
        (["run=RUN", "+out=new", "adapter=true"], "holds no adapter"),
        (["run=RUN", "out={x", "adapter=true"], "holds no adapter"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "-".join(value)[:40],
)
def test_an_export_that_cannot_be_is_one_message(empg: Empg, finished_run: Path, words: list[str], said: str) -> None:
    Path("full").mkdir()
    Path("full", "mine").touch()
    refused = empg("export", *(word.replace("RUN", str(finished_run)) for word in words), code=2)
    assert said in refused.stderr
    assert [path.name for path in Path().iterdir()] == ["full"]
    assert [path.name for path in Path("full").iterdir()] == ["mine"]


def test_an_adapter_cannot_become_another_when_a_run_goes_on(empg: Empg, lora_run: Path) -> None:
    shutil.copytree(lora_run, "run")
    refused = empg("train", "--resume", "run", "model.lora.alpha=4", code=2)
    assert "model.lora.alpha: cannot change when resuming" in refused.stderr


def test_a_configuration_says_that_there_is_none() -> None:
    assert config.load([]).model.lora.model_dump() == {"rank": 0, "alpha": 32.0, "targets": None}
