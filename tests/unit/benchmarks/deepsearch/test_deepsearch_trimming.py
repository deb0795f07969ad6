"""What follows the first complete action leaves the episode: it neither trains nor stands in a later prompt."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import ChatCodec
from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.agents.messages import MessageCodec
from empg_cli.benchmarks.deepsearch.env import DeepSearchEnv, DeepSearchRules
from empg_cli.benchmarks.deepsearch.retrieval.base import Hit, Runner
from empg_cli.benchmarks.deepsearch.reward import Shaping
from empg_cli.benchmarks.deepsearch.rules import Reader, Rules
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.model.attention import POLICY_ATTENTION
from empg_cli.model.policy import Policy
from empg_cli.rollout.engine import Completion
from empg_cli.rollout.episode import understood
from empg_cli.rollout.torch_engine.engine import TorchEngine
from empg_cli.types import Task, Trajectory
from tests.support.chat import chat_tokenizer
from tests.support.scripted import scripted_rollout
from tests.support.turns import Turns

SEARCH = "<think>a</think>\n<search>b</search>"
TAIL = "\n<information>Doc 1(Title: T) I made this up.</information><answer>Rome</answer>"
ANSWER = "<think>c</think><answer>Paris</answer>"
TASK = Task("q", "k", "id", Question("q", "Which city?", ("Paris",), "k", "id"))


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec(chat_tokenizer())


class Engine:
    name, is_local = "fake", True

    async def search(self, queries: list[str], top_k: int) -> list[list[Hit]]:
        return [[Hit("0", "T", "Something.")] for _ in queries]


class World:
    """A benchmark of one question."""

    def __init__(self, rules: Rules = "ours") -> None:
        self.rules = DeepSearchRules(
            max_steps=6, last_turn="any", top_k=1, snippet_words=0, open_tool=False, max_observation_chars=4000,
            action_form="any", reward="em", success_reward=1.0, shaping=Shaping(), rules=rules,
        )  # fmt: skip

    def make_env(self, task: Task) -> DeepSearchEnv:
        return DeepSearchEnv(task, self.rules, Engine(), Runner(is_local=True), None)  # type: ignore[arg-type]


def play(codec: ChatCodec, texts: list[str], rules: Rules = "ours", context: str = "transcript") -> Trajectory:
    def make_agent() -> Agent:
        return Agent(DeepSearchChat(Reader(rules)), codec, context=context, history=2)

    (trajectory,) = scripted_rollout(World(rules), make_agent, [TASK], [texts], append_only=context == "transcript")
    return trajectory


@pytest.mark.parametrize("rules", ["ours", "search_r1"])
@pytest.mark.parametrize("context", ["transcript", "window"])
def test_what_follows_the_action_neither_trains_nor_stays(codec: ChatCodec, rules: Rules, context: str) -> None:
    trajectory = play(codec, [SEARCH + TAIL, ANSWER], rules, context)
    first, second = trajectory.steps
    assert codec.decode(first.response_ids) == SEARCH
    assert first.response_ids == codec.response(SEARCH + TAIL)[: len(first.response_ids)]  # as sampled
    assert len(first.logprobs) == len(first.entropies) == len(first.response_ids)
    assert first.well_formed and not first.was_cut
    assert "made this up" not in codec.decode(second.prompt_ids)
    if context == "transcript":  # the turn that the model did not end is closed for it
        assert second.prompt_ids[0] in codec.stop_ids
    assert trajectory.success


def test_verl_agent_keeps_and_trains_all_of_it_and_calls_it_invalid(codec: ChatCodec) -> None:
    first, _ = play(codec, [SEARCH + TAIL, ANSWER], "verl_agent").steps
    assert first.response_ids == codec.response(SEARCH + TAIL)
    assert not first.well_formed


def test_a_response_that_ends_with_its_action_stays_as_it_is(codec: ChatCodec) -> None:
    for text in (SEARCH, SEARCH + "\n \n"):
        first, second = play(codec, [text, ANSWER]).steps
        assert first.response_ids == codec.response(text)
        assert second.prompt_ids[0] not in codec.stop_ids


def test_the_token_that_completes_the_action_is_the_last_one_kept(codec: ChatCodec) -> None:
    """Of every cut through the text, the kept ids are the shortest beginning that holds the action."""
    ids = codec.response(SEARCH + "é!" + TAIL)
    surplus = len("é!" + TAIL)
    kept = codec.without(ids, surplus)
    assert kept == ids[: len(kept)]
    assert codec.decode(kept).startswith(SEARCH)
    assert not codec.decode(kept[:-1]).startswith(SEARCH)


def test_special_tokens_after_the_action_are_cut_too(codec: ChatCodec) -> None:
    """They have no text, but they would train."""
    start = chat_tokenizer().convert_tokens_to_ids("<|im_start|>")
    ids = codec.response(SEARCH)
    assert codec.without([*ids[:-1], start, ids[-1]], 0) == ids[:-1]


def test_an_action_that_is_complete_at_the_token_limit_is_well_formed(codec: ChatCodec) -> None:
    agent = Agent(DeepSearchChat(), codec, context="transcript", history=0)
    for text, is_complete in ((SEARCH + TAIL[:9], True), (SEARCH, True), (SEARCH[:-3], False)):
        ids = codec.response(text)[:-1]
        zeros = [0.0] * len(ids)
        _, step = understood(agent, [1], Completion(ids, zeros, zeros, ended=False, policy_version=0))
        assert (step.well_formed, step.was_cut) == (is_complete, not is_complete)


def test_a_message_of_a_server_is_cut_as_text() -> None:
    codec = MessageCodec()
    ids = codec.response(SEARCH + TAIL)
    assert codec.decode(codec.without(ids, len(TAIL))) == SEARCH
    assert codec.without(ids, 0) == ids


def test_a_session_goes_on_as_if_the_cut_response_had_been_sampled() -> None:
    """The log-probs after a cut are those of a session that reads the shorter transcript anew."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": True,
    }  # fmt: skip
    network = Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
    network.set_attn_implementation(POLICY_ATTENTION)
    policy = Policy(network, tokenizer, torch.device("cpu"))
    prompts = [[5, 6, 7, 8], [9, 10, 11]]
    uniforms = [np.linspace(0.1, 0.9, 6), np.linspace(0.8, 0.2, 6)]
    settings = {"max_new_tokens": 6, "temperature": 1.0}
    session = Turns(TorchEngine(policy, ()), 2, append_only=True)
    first = session.respond(prompts, uniforms, **settings)  # type: ignore[arg-type]
    kept = [first[0].token_ids[:2], first[1].token_ids]
    session.cut(copy.deepcopy(kept), first)
    turn = [[20, 21], [22]]
    second = session.respond(turn, uniforms, **settings)  # type: ignore[arg-type]
    whole = [prompt + ids + more for prompt, ids, more in zip(prompts, kept, turn, strict=True)]
    fresh = Turns(TorchEngine(policy, ()), 2, append_only=True).respond(whole, uniforms, **settings)  # type: ignore[arg-type]
    for after_cut, anew in zip(second, fresh, strict=True):
        assert after_cut.token_ids == anew.token_ids
        assert after_cut.logprobs == pytest.approx(anew.logprobs, abs=2e-5)
    assert len(first[0].token_ids) == 6  # something was cut
