"""What a model reads and how its answers become actions."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from empg_cli import config
from empg_cli.agents.agent import Agent
from empg_cli.agents.alfworld_chat import AlfworldChat
from empg_cli.agents.alfworld_compact import AlfworldCompact, goal_words, vocabulary
from empg_cli.agents.codec import ChatCodec, CompactCodec
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.model.tiny import word_tokenizer
from empg_cli.types import Task
from tests.support.chat import chat_tokenizer
from tests.support.scripted import scripted_rollout

OPENING = Observation(
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
    "a cabinet 2, a cabinet 1, a fridge 1, and a sinkbasin 1.\n\nYour task is to: clean some egg and put it in fridge.",
    ("go to cabinet 1", "help"),
)


def test_compact_words_of_an_episode() -> None:
    wording = AlfworldCompact()
    assert wording.opening(OPENING) == (
        "task clean egg fridge room cabinet_2 cabinet_1 fridge_1 sinkbasin_1 hold none want clean egg fridge"
    )

    def turn(text: str) -> str:
        return wording.turn("", Observation(text, ()))

    want = "want clean egg fridge"
    assert turn("You arrive at cabinet 1. The cabinet 1 is closed.") == f"at cabinet_1 closed hold none {want}"
    assert turn("You open the cabinet 1. The cabinet 1 is open. In it, you see a egg 2, and a mug 1.") == (
        f"at cabinet_1 see egg_2 mug_1 hold none {want}"
    )
    assert turn("You pick up the egg 2 from the cabinet 1.") == f"at cabinet_1 took egg_2 hold egg_2 {want}"
    assert turn("Nothing happens.") == f"at cabinet_1 refused hold egg_2 {want}"
    assert turn("You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.") == (
        f"at sinkbasin_1 see nothing hold egg_2 {want}"
    )
    assert turn("You clean the egg 2 using the sinkbasin 1.") == f"at sinkbasin_1 clean egg_2 hold egg_2 clean {want}"
    assert turn("You move the egg 2 to the fridge 1.") == f"at sinkbasin_1 put egg_2 hold none {want}"


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ("put a hot apple in fridge.", "heat apple fridge"),
        ("heat some apple and put it in fridge.", "heat apple fridge"),
        ("put two cd in safe.", "two cd safe"),
        ("find two cd and put them in safe.", "two cd safe"),
        ("put a cd in safe.", "place cd safe"),
        ("put some cd on desk.", "place cd desk"),
        ("look at bowl under the desklamp.", "light bowl desklamp"),
        ("examine the bowl with the desklamp.", "light bowl desklamp"),
        ("put a cool pan in stoveburner.", "cool pan stoveburner"),
    ],
)
def test_goal_words(goal: str, words: str) -> None:
    assert goal_words(goal) == words


def test_every_admissible_command_survives_the_compact_form() -> None:
    benchmark = make_benchmark(**config.load().benchmark.model_dump())
    tokenizer = word_tokenizer(vocabulary())
    codec, rng = CompactCodec(tokenizer), random.Random(0)
    checked = 0
    for task in benchmark.tasks("train")[:12]:
        env, wording = benchmark.make_env(task), AlfworldCompact()
        result = env.reset()
        for _ in range(12):
            for action in result.actions:
                ids = codec.response(wording.phrase(action))
                assert tokenizer.unk_token_id not in ids, action
                parsed = wording.parse(codec.decode(ids))
                assert (parsed.action, parsed.well_formed) == (action, True)
                checked += 1
            result = env.step(rng.choice(result.actions))
    assert checked > 2000


@pytest.mark.parametrize(
    ("answer", "action"),
    [("", ""), ("go", "go"), ("take egg_1", "take egg 1"), ("fridge_1 go", "fridge 1 go"), ("go egg", "go to egg")],
)
def test_malformed_compact_answers_are_passed_on(answer: str, action: str) -> None:
    parsed = AlfworldCompact().parse(answer)
    assert (parsed.action, parsed.well_formed) == (action, False)


@pytest.mark.parametrize(
    ("answer", "action", "well_formed"),
    [
        ("<think>so</think><action> Go to Fridge 1 </action>", "go to fridge 1", True),
        ("<action>look</action>", "look", False),  # no reasoning
        ("<think>so</think> look around the whole room now, please", "n the whole room now, please", False),
        ("<think>x</think><action>look</action><action>go</action>", "look", True),  # the first one counts
        ("<think>\u597d</think><action>look</action>", "look", False),  # CJK
    ],
)
def test_chat_answers(answer: str, action: str, well_formed: bool) -> None:
    parsed = AlfworldChat().parse(answer)
    assert parsed.well_formed is well_formed
    assert parsed.action == action or (not well_formed and answer.lower().endswith(parsed.action))


def test_chat_transcript_equals_the_template_over_all_messages() -> None:
    """Turn by turn, the ids are those of the whole conversation rendered at once."""
    tokenizer = chat_tokenizer()
    agent = Agent(AlfworldChat(), ChatCodec(tokenizer), context="transcript", history=0)
    ids = agent.start(OPENING)
    answer = "<think>a</think><action>go to cabinet 1</action>"
    response = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.convert_tokens_to_ids("<|im_end|>")]
    reply = Observation("You arrive at cabinet 1. The cabinet 1 is closed.", ("open cabinet 1",))
    ids += response + agent.next_prompt("go to cabinet 1", reply, ended=True)

    wording = AlfworldChat()
    messages = [
        {"role": "user", "content": wording.opening(OPENING)},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": wording.turn("go to cabinet 1", reply)},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(ids) == text
    assert agent.codec.stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_a_response_that_was_cut_is_closed_by_the_next_prompt() -> None:
    tokenizer = chat_tokenizer()
    codec = ChatCodec(tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert codec.turn("x", ended=False) == [end, *codec.turn("x", ended=True)]
    compact = CompactCodec(word_tokenizer(["x"]))
    assert compact.turn("x", ended=False) == [*compact.stop_ids, *compact.turn("x", ended=True)]


def test_window_prompts_repeat_the_last_exchanges_only() -> None:
    agent = Agent(AlfworldChat(), ChatCodec(chat_tokenizer()), context="window", history=2)
    agent.start(OPENING)
    for number in range(1, 5):
        prompt = agent.next_prompt(f"action {number}", Observation(f"seen {number}", ("look",)), ended=True)
    text = agent.codec.decode(prompt)
    assert "Steps taken so far: 4. The most recent 2:" in text
    assert "Observation 3: 'seen 2', Action 3: 'action 3'" in text
    assert "Observation 4: 'seen 3', Action 4: 'action 4'" in text
    assert "Step 5. You now observe: seen 4" in text
    assert "action 2'" not in text and "seen 1" not in text


class Room:
    """Any action ends the episode."""

    def reset(self) -> Observation:
        return OPENING

    def step(self, action: str) -> StepResult:
        return StepResult("Nothing happens.", (), 0.0, True, False, 0.0, True)


@pytest.mark.parametrize(
    ("agent", "answer", "cut", "well_formed"),
    [
        ("chat", "<think>so</think><action>look</action>", True, True),  # its tags are complete
        ("chat", "<think>so</think><action>look</actio", True, False),
        ("chat", "<think>so</think><action>look</action>", False, True),
        ("compact", "look", True, False),  # its end word is part of the form
        ("compact", "look", False, True),
    ],
)
def test_a_cut_answer_is_malformed_if_its_form_is_incomplete(
    agent: str, answer: str, cut: bool, well_formed: bool
) -> None:
    def make_agent() -> Agent:
        if agent == "chat":
            return Agent(AlfworldChat(), ChatCodec(chat_tokenizer()), context="window", history=2)
        return Agent(AlfworldCompact(), CompactCodec(word_tokenizer(vocabulary())), context="window", history=2)

    benchmark: Any = SimpleNamespace(make_env=lambda task: Room())
    (trajectory,) = scripted_rollout(benchmark, make_agent, [Task("t", "k", "train")], [[answer]], cut=cut)
    (step,) = trajectory.steps
    assert (step.well_formed, step.was_cut) == (well_formed, cut)
