"""docs/integrations.md as it stands: its commands and snippets, in the order of the page, in one folder."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from empg_cli.loop import train
from tests.e2e.conftest import invoke
from tests.support.chat import save_chat_model
from tests.support.serving import serving
from tests.support.tiny import tiny_config

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs/chat, the current one."""
    here, folder = Path.cwd(), tmp_path_factory.mktemp("page")
    model = save_chat_model(folder / "model")
    cfg = tiny_config(
        *("trainer.updates=1", "trainer.tasks_per_update=1", "algo.group_size=2", "trainer.minibatches=1"),
        *("trainer.warm_start.steps=0", "trainer.old_logprobs=recompute", "rollout=window", "rollout.max_new_tokens=8"),
        *("rollout.max_context_tokens=8000", "benchmark.train_games=3", "benchmark.max_steps=2"),
        *("benchmark.eval_tasks=2", "logger.wandb.mode=disabled"),
        model=("model=qwen2.5-0.5b", f"model.path={model}", "model.dtype=float32"),
    )
    os.chdir(folder)
    train(cfg, Path("runs/chat"))
    yield folder
    os.chdir(here)


@pytest.fixture(scope="module")
def base_url(place: Path) -> Iterator[str]:
    pytest.importorskip("uvicorn", reason="serving needs the extra: empg-cli[serve]")
    with serving(Path("runs/chat"), "name=agent") as served:
        yield f"{served.url}/v1"


def lines() -> Iterator[list[str]]:
    for kind, block in BLOCKS:
        if kind == "bash":
            yield from (shlex.split(line, comments=True) for line in block.splitlines())


@pytest.mark.parametrize("words", list(lines()), ids=" ".join)
def test_the_command_runs(words: list[str], place: Path, request: pytest.FixtureRequest) -> None:
    assert words[0] == "empg"
    match words[1:]:
        case ["serve", run, *given]:  # at a free port, until it has said that it is well
            pytest.importorskip("uvicorn", reason="serving needs the extra: empg-cli[serve]")
            words = [word for word in given if not word.startswith("port=")]
            with serving(Path(run.removeprefix("run=")), *words) as served:
                assert httpx.get(f"{served.url}/health").json() == {"status": "ok"}
                assert served.interrupt() == 0
        case ["eval", *given]:
            url = request.getfixturevalue("base_url")
            invoke("eval", *(word.replace("BASE_URL", url) for word in given), "benchmark.max_steps=2")
        case ["export", *given] if "hub=owner/name" in given and "--dry-run" not in given:
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("HF_TOKEN", raising=False)
                assert "HF_TOKEN" in invoke("export", *given, code=2).stderr
        case given:
            invoke(*given)


@pytest.mark.parametrize(
    "snippet", [block for kind, block in BLOCKS if kind == "python"], ids=lambda text: text.splitlines()[0]
)
def test_the_snippet_runs(snippet: str, place: Path, request: pytest.FixtureRequest) -> None:
    for package in re.findall(r"^import (\w+)", snippet, re.MULTILINE):
        pytest.importorskip(package)
    if "integrations.verifiers" in snippet:
        found = importlib.util.find_spec("verifiers")
        if found is None or not hasattr(pytest.importorskip("verifiers"), "MultiTurnEnv"):
            pytest.skip("verifiers with MultiTurnEnv is not installed")
    if "integrations.trl" in snippet:
        pytest.skip("needs TRL and a model that calls tools: tests/parity/test_trl_trainer.py runs it (make parity)")
    if "steps/steps.parquet" in snippet and not Path("steps/steps.parquet").exists():
        invoke("data", "trajectories", "run=runs/chat", "out=steps/steps.parquet")
    names = {"BASE_URL": request.getfixturevalue("base_url")} if "BASE_URL" in snippet else {}
    exec(compile(snippet, "docs/integrations.md", "exec"), names)
