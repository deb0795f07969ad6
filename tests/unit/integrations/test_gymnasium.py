"""Benchmarks through Gymnasium: its own checker, whole episodes by the expert, wrappers and vectors of environments."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra: empg-cli[gymnasium]")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from empg_cli.benchmarks import make_benchmark  # noqa: E402
from empg_cli.config.problems import ConfigError  # noqa: E402
from empg_cli.integrations.gymnasium import AnyText, TextEnv, register  # noqa: E402

SMALL: dict[str, dict[str, Any]] = {
    "alfworld": {"train_games": 6},
    "webshop": {"num_products": 60},
    "deepsearch": {},
}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()
    register()  # a second call is no error, and warns of nothing


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lambda name, **keys: gymnasium.make(f"empg/{name}-v0", **SMALL[name], **keys)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", ["alfworld", "webshop"])
def test_gymnasiums_checker_has_no_complaint(make: Callable[..., Any], name: str) -> None:
    check_env(make(name, render_mode="ansi", disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("name", ["alfworld", "webshop"])
def test_the_expert_solves_a_task_through_it(make: Callable[..., Any], name: str) -> None:
    """The expert plays an environment of its own; the adapter is told the same actions and ends the same way."""
    env = make(name, split="train")
    text, info = env.reset(options={"task": 2})
    own = make_benchmark(name, **SMALL[name])
    task = own.tasks("train")[2]
    played = own.make_env(task)
    first = played.reset()
    assert (text, info["actions"], info["task_id"], info["kind"]) == (
        first.text, first.actions, task.task_id, task.kind,
    )  # fmt: skip
    for action in own.expert(played):
        expected = played.step(action)
        text, reward, terminated, truncated, info = env.step(action)
        assert (text, reward, info["actions"]) == (expected.text, expected.reward, expected.actions)
        assert (info["valid"], info["success"], info["score"]) == (expected.valid, expected.success, expected.score)
        assert (terminated, truncated) == (expected.done, False)
        if expected.done:
            break
    assert terminated and info["success"]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look")


def test_the_step_limit_truncates(make: Callable[..., Any]) -> None:
    env = make("alfworld", max_steps=2, render_mode="ansi")
    env.reset(seed=0)
    assert env.step("no such thing")[2:4] == (False, False)
    text, reward, terminated, truncated, info = env.step("look")
    assert (terminated, truncated, reward, info["success"]) == (False, True, 0.0, False)
    assert env.render() == text


@pytest.mark.parametrize("name", ["webshop", "deepsearch"])
def test_an_agent_that_ends_the_episode_on_its_last_step_is_not_truncated(make: Callable[..., Any], name: str) -> None:
    env = make(name, max_steps=4, split="train")
    _, info = env.reset(options={"task": 0})
    own = env.unwrapped
    ends = "click[buy now]" if name == "webshop" else "answer[nobody]"
    if name == "webshop":  # something else than was asked for is bought
        for action in ("search[xyzzy]", "search[red shirt]"):
            _, _, _, _, info = env.step(action)
        item = next(action for action in info["actions"] if re.fullmatch(r"click\[b0.*\]", action, re.IGNORECASE))
        _, _, _, _, info = env.step(item)
    else:
        for _ in range(3):
            env.step("search[x]")
    assert own._steps == 3
    _, _, terminated, truncated, info = env.step(ends)
    assert (terminated, truncated, info["success"]) == (True, False, False)
    env.reset(options={"task": 0})
    last = [env.step("search[xyzzy]")[2:4] for _ in range(4)]
    assert last == [(False, False)] * 3 + [(False, True)]


def test_seeds_draw_tasks_and_names_choose_them(make: Callable[..., Any]) -> None:
    env = make("alfworld")
    drawn = [env.reset(seed=seed)[1]["task_id"] for seed in range(12)]
    assert drawn == [env.reset(seed=seed)[1]["task_id"] for seed in range(12)] and len(set(drawn)) > 2
    env.reset(seed=0)
    following = [env.reset()[1]["task_id"] for _ in range(12)]
    assert len(set(following)) > 2  # without a seed the stream goes on
    assert env.reset(options={"task": drawn[0]})[1]["task_id"] == drawn[0]
    assert env.reset(options={"task": np.int64(2)})[1] == env.reset(options={"task": 2})[1]
    for wrong in (6, -1, "nothing", True, 1.0, np.bool_(True)):
        with pytest.raises(ValueError, match="no task"):
            env.reset(options={"task": wrong})
    with pytest.raises(ValueError, match="unknown key 'tsk'"):
        env.reset(options={"tsk": 1})


def test_environments_side_by_side() -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: TextEnv("alfworld", train_games=6, max_steps=3)] * 3)
    texts, infos = envs.reset(seed=[0, 1, 2])
    assert len(texts) == 3 and len(set(infos["task_id"])) > 1
    texts, rewards, terminated, truncated, _ = envs.step(("look", "look", "look"))
    assert list(rewards) == [0, 0, 0] and not terminated.any() and not truncated.any()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="train_gmes"):
        TextEnv("alfworld", train_gmes=3)
    with pytest.raises(ValueError, match="split"):
        TextEnv("alfworld", train_games=3, split="nowhere")


def test_a_benchmark_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "adding-a-benchmark.md").read_text(encoding="utf-8")
    (tmp_path / "lamps_for_gym.py").write_text(page.partition("# lamps.py\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    env = TextEnv("lamps", target="lamps_for_gym:Lamps", width=3, split="valid")
    text, info = env.reset(options={"task": "000"})
    assert (text, info["actions"]) == ("lamps off off off", ("flip 1", "flip 2", "flip 3"))
    text, *_, info = env.step("flip 1")
    assert text == "lamps on on off" and info["lit"] == pytest.approx(2 / 3)
    assert env.max_steps == 6  # the default of its own settings
    sys.modules.pop("lamps_for_gym", None)


def test_its_texts_may_hold_anything() -> None:
    space = AnyText(10)
    space.seed(0)
    assert "" in space and "naïve 日本" in space and "x" * 11 not in space and 3 not in space
    assert all(space.sample() in AnyText(20) for _ in range(20))
