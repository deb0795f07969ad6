"""What Deep Search says to a chat model, word for word, and what it makes of the responses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.agents.wording import Exchange
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.actions import TEMPLATES, parse_action
from empg_cli.loop import train
from tests.support.chat import save_chat_model
from tests.support.tiny import tiny_config

BOTH = (TEMPLATES["search"], TEMPLATES["answer"])
TASK = """\
You answer a question with the help of a search engine; the facts are in its documents, not in your memory.
Each time, first reason inside <think> </think> about what is known and what is missing. Then do one thing:
- look something up: <search> your query </search>
- finish: <answer> the answer alone, without explanation </answer>
What you look up comes back between <information> and </information>.

Question: Who wrote Zob?"""
TURN = """\
<information>Doc 1(Title: Zob) Zob was written by Ana.</information>

Reason inside <think> </think>, then do one thing:
- look something up: <search> your query </search>
- finish: <answer> the answer alone, without explanation </answer>"""


@pytest.fixture
def wording() -> DeepSearchChat:
    made = DeepSearchChat()
    assert made.opening(Observation("Who wrote Zob?", BOTH)) == TASK
    return made


@pytest.mark.parametrize("form", ["{}", "<information>{}</information>"])
def test_a_turn_wraps_information_once(wording: DeepSearchChat, form: str) -> None:
    shown = Observation(form.format("Doc 1(Title: Zob) Zob was written by Ana."), BOTH)
    assert wording.turn("<think>a</think><search>Zob</search>", shown) == TURN


def test_a_turn_offers_what_the_environment_offers(wording: DeepSearchChat) -> None:
    assert "<search>" not in wording.turn("", Observation("x", (TEMPLATES["answer"],)))
    assert "- read a whole document: <open> its id </open>" in wording.turn(
        "", Observation("x", tuple(TEMPLATES.values()))
    )


def test_a_window_repeats_actions_with_what_they_showed(wording: DeepSearchChat) -> None:
    past = [
        Exchange("Nothing.", "<think>a</think><search> Zob </search> more"),
        Exchange("Doc 1(Title: Zob) It.", "hm"),
    ]
    assert wording.window(past, 3, Observation("Write an action.", BOTH)) == (
        f"{TASK}\n\nSteps taken so far: 3. The most recent 2:\n"
        "Step 2: <search>Zob</search>\n<information>Doc 1(Title: Zob) It.</information>\n"
        "Step 3: (no complete action)\n<information>Write an action.</information>"
    )
    assert wording.window([], 3, Observation("Doc", BOTH)).endswith("recent 0:\n<information>Doc</information>")


@pytest.mark.parametrize(
    ("response", "is_well_formed"),
    [
        ("<think>a</think>\n<search>Zob</search>", True),
        ("<think>a</think><answer>Ana</answer> and so on", True),
        ("<search>Zob</search>", False),
        ("<think>a</think> search[Zob]", False),  # played by the environment (action_form=any), yet not what was asked
        ("<think>a <search>Zob</search>", False),
        ("Ana", False),
    ],
)
def test_responses_reach_the_environment_unchanged(response: str, is_well_formed: bool) -> None:
    parsed = DeepSearchChat().parse(response)
    assert (parsed.action, parsed.well_formed) == (response, is_well_formed)


@pytest.mark.parametrize("action", ["search[Zob novel]", "<think>x</think>\n<answer>Ana</answer>", "open[17]"])
def test_demonstrations_are_well_formed_and_mean_the_same(action: str) -> None:
    parsed = DeepSearchChat().parse(DeepSearchChat().phrase(action))
    before, after = parse_action(action, "any"), parse_action(parsed.action, "tag")
    assert before and after and parsed.well_formed
    assert (before.tool, before.argument) == (after.tool, after.argument)


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_a_chat_model_trains_on_deep_search(context: str, tmp_path: Path) -> None:
    model = save_chat_model(tmp_path / "model")
    cfg = tiny_config(
        "benchmark=deepsearch",
        f"benchmark.cache_dir={tmp_path / 'cache'}",
        "benchmark.world.scale=0.1",
        "benchmark.world.train_questions=40",
        "benchmark.world.test_questions=4",
        "benchmark.eval_tasks=4",
        "benchmark.max_steps=2",
        f"rollout={context}",
        "rollout.max_new_tokens=8",
        "rollout.max_context_tokens=8000",
        "trainer.updates=1",
        "trainer.tasks_per_update=2",
        "trainer.minibatches=2",
        "trainer.old_logprobs=recompute",
        "algo.group_size=3",
        "logger.wandb.mode=disabled",
        model=("model=qwen2.5-0.5b", f"model.path={model}", "model.dtype=float32"),
    )
    train(cfg, tmp_path / "run")
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
    assert row["rollout/logprob_gap/max"] < 1e-4
    assert row["episode/length/mean"] == 2
    assert row["actor/grad_norm"] > 0
