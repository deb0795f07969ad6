"""`model.path=DIR`: the obvious command plays the model as a chat model, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.agents.codec import ChatCodec, CompactCodec
from empg_cli.config import load
from empg_cli.config.local_model import with_local_model
from empg_cli.config.location import conf_dir
from empg_cli.config.schema import EvalConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.run_eval import run_eval
from empg_cli.model.tiny import word_tokenizer
from tests.support.chat import chat_tokenizer, save_chat_model

TINY_AGENT = conf_dir().parent / "src" / "empg_cli" / "assets" / "tiny-alfworld"
PLAY = ("benchmark.eval_tasks=1", "benchmark.max_steps=1", "benchmark.train_games=2", "rollout.max_new_tokens=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "my model")


def evaluation(*words: str) -> EvalConfig:
    return load([*words, *PLAY, "trainer.device=cpu", "trainer.threads=1", "logger.console=quiet"], "eval")


def test_a_path_alone_chooses_the_chat_preset_and_names_it(folder: Path) -> None:
    words, note = with_local_model([f"model.path='{folder}'"], "eval")
    assert words == ["model=local", "model.name=my-model", f"model.path='{folder}'"]
    assert note is not None and "model=local" in note
    cfg, chosen = load(words), load(["model=qwen2.5-1.5b"])
    assert (cfg.model.prompt, cfg.model.init, cfg.model.path) == ("chat", "pretrained", str(folder))
    assert cfg.rollout == chosen.rollout  # its window and limits
    assert cfg.trainer == chosen.trainer
    assert "-my-model/" in cfg.run_dir


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["model=qwen2.5-0.5b"], []),  # the folder is another place for that model
        (["experiment=paper_1.5b"], []),  # it chooses a model, too
        (["model=local"], ["model.name=my-model"]),
        (["model=local", "model.name=x"], []),
        (["model.prompt=compact", "model.init=pretrained"], []),
    ],
)
def test_what_is_chosen_stays(words: list[str], added: list[str], folder: Path) -> None:
    words = [*words, f"model.path='{folder}'"]
    note = f"model.path names the model: {added[0]}" if added else None
    assert with_local_model(words, "train") == ([*added, *words], note)


def test_no_path_composes_nothing() -> None:
    assert with_local_model(["algo=grpo", "model.path=null"], "train") == (["algo=grpo", "model.path=null"], None)
    assert with_local_model(["algo=grpo"], "no such config") == (["algo=grpo"], None)


def test_the_folder_of_a_tiny_agent_stays_a_tiny_agent() -> None:
    cfg = load([f"model.path={TINY_AGENT}"])
    assert (cfg.model.init, cfg.model.prompt, cfg.rollout.max_new_tokens) == ("pretrained", "compact", 6)
    assert cfg.model.name == "tiny-alfworld"


def test_it_plays(folder: Path, tmp_path: Path) -> None:
    cfg = evaluation(f"model.path='{folder}'")
    result = run_eval(cfg, tmp_path / "run")
    assert result["total"]["n"] == 1
    assert result["policy"]["source"] == str(folder)


def test_a_chat_model_in_the_compact_form_is_refused(folder: Path, tmp_path: Path) -> None:
    cfg = evaluation("model.init=pretrained", f"model.path='{folder}'")
    with pytest.raises(UserError, match=r"lacks <act> and <end>: a chat model is played with model=local") as caught:
        run_eval(cfg, tmp_path / "run")
    assert caught.value.exit_code == 2


def test_tokenizers_that_do_not_fit_the_form_are_refused() -> None:
    with pytest.raises(UserError, match="lacks <act> and <end>"):
        CompactCodec(chat_tokenizer())
    with pytest.raises(UserError, match="needs a tokenizer with a chat template, and this one has none"):
        ChatCodec(word_tokenizer(["x"]))
