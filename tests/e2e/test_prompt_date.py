"""A chat template that shows the date: the prompts of a run stay those of the day it was made."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import pytest

from empg_cli.agents.codec import ChatCodec
from empg_cli.config.job import load_job
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.evaluation.run_eval import run_eval
from empg_cli.evaluation.theory import diagnose
from empg_cli.loop import train
from empg_cli.runs.own_config import primary_config
from tests.support.chat import DATED, save_chat_model
from tests.support.tiny import tiny_config


class Clock:
    """Sets the day everywhere where a prompt could look for it, and notes the first prompts of episodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[str] = []
        self._patch = monkeypatch
        opening = ChatCodec.opening

        def noted(codec: ChatCodec, text: str) -> list[int]:
            ids = opening(codec, text)
            self.prompts.append(codec._tokenizer.decode(ids))
            return ids

        monkeypatch.setattr(ChatCodec, "opening", noted)

    def set(self, day: date) -> None:
        class Day(date):
            @classmethod
            def today(cls) -> date:
                return day

        class Now(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:
                return datetime(day.year, day.month, day.day)

        self._patch.setattr("empg_cli.runs.facts.date", Day, raising=False)
        self._patch.setattr("empg_cli.agents.codec.date", Day, raising=False)
        self._patch.setattr("transformers.utils.chat_template_utils.datetime", Now)

    def shown(self) -> set[str]:
        """The days in the prompts since the last call."""
        prompts, self.prompts = self.prompts, []
        return {prompt.partition("Today is ")[2].partition(".")[0] for prompt in prompts}


def config(model: Path, *overrides: str) -> TrainConfig:
    return tiny_config(
        *("trainer.tasks_per_update=1", "algo.group_size=2", "trainer.minibatches=1", "trainer.eval_before=false"),
        *("trainer.warm_start.steps=0", "benchmark.eval_tasks=2", "benchmark.train_games=2", "benchmark.max_steps=1"),
        *("rollout=window", "rollout.max_new_tokens=2", "rollout.max_context_tokens=4000", "algo=grpo"),
        *("logger.wandb.mode=disabled", *overrides),
        model=("model=qwen2.5-0.5b", f"model.path={model}", "model.dtype=float32"),
    )


def test_a_run_goes_on_with_the_day_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run = save_chat_model(tmp_path / "model", DATED), tmp_path / "run"
    clock = Clock(monkeypatch)
    clock.set(date(2026, 1, 31))
    train(config(model, "trainer.updates=1"), run)
    assert clock.shown() == {"31 Jan 2026"}

    clock.set(date(2026, 2, 1))  # midnight has passed
    train(config(model, "trainer.updates=2", "resume=auto"), run)
    assert clock.shown() == {"31 Jan 2026"}
    assert json.loads((run / "run.json").read_text())["prompt_date"] == "2026-01-31"

    cfg = load_job(primary_config("eval", run, [], run=str(run)), [], EvalConfig)
    run_eval(cfg, tmp_path / "eval")
    assert clock.shown() == {"31 Jan 2026"}
    diagnose(cfg, run, run, episodes=2, gradients=0, before=None)
    assert clock.shown() == {"31 Jan 2026"}

    run_eval(cfg.model_copy(update={"run": None}), tmp_path / "base")  # no run: today
    assert clock.shown() == {"01 Feb 2026"}
