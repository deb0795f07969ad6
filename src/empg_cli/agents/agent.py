"""An agent plays one trajectory: observations in, prompt token ids out; response token ids in, action out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, Generic, Protocol

from empg_cli.agents.alfworld_chat import AlfworldChat
from empg_cli.agents.alfworld_compact import AlfworldCompact
from empg_cli.agents.chat_template import ChatTemplateError, generation_ends
from empg_cli.agents.codec import ChatCodec, Codec, CompactCodec, P
from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.agents.deepsearch_compact import DeepSearchCompact
from empg_cli.agents.plain import PlainChat, PlainCompact
from empg_cli.agents.webshop_chat import WebshopChat
from empg_cli.agents.webshop_compact import WebshopCompact
from empg_cli.agents.wording import BringsWordings, Exchange, Parsed, Wording
from empg_cli.benchmarks import base
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.rules import Reader
from empg_cli.config.benchmarks import Alfworld, Benchmark, CustomBenchmark, Webshop
from empg_cli.config.deepsearch import Deepsearch
from empg_cli.config.schema import EvalConfig, TrainConfig


class Agent(Generic[P]):
    """Context building for one trajectory, in what its codec makes: token ids, or messages.

    `transcript` returns only the tokens that are new since the last response; `window` returns whole prompts that
    repeat the last `history` exchanges.
    """

    def __init__(self, wording: Wording, codec: Codec[P], *, context: str, history: int) -> None:
        self.wording, self.codec = wording, codec
        self._append_only, self._history = context == "transcript", history
        self._past: list[Exchange] = []
        self._steps_taken = 0
        self._observation = Observation("", ())

    def start(self, observation: Observation) -> list[P]:
        self._observation = observation
        return self.codec.opening(self.wording.opening(observation))

    def parse(self, response: Sequence[P], *, ended: bool = True) -> Parsed:
        """The action of a response.

        Args:
            ended: the response closed its turn itself, it was not cut.
        """
        parsed = self.wording.parse(self.codec.thought + self.codec.decode(response))
        return parsed if ended or not self.codec.needs_end else replace(parsed, well_formed=False)

    def kept(self, response: list[P], parsed: Parsed) -> list[P]:
        """The beginning of a response that stays in the context and trains."""
        return response if parsed.surplus is None else self.codec.without(response, parsed.surplus)

    def next_prompt(self, action: str, observation: Observation, *, ended: bool) -> list[P]:
        """Prompt for the step after `action`, which led to `observation`."""
        self._steps_taken += 1
        self._past.append(Exchange(self._observation.text, action))
        self._observation = observation
        if self._append_only:
            return self.codec.turn(self.wording.turn(action, observation), ended=ended)
        past = self._past[-self._history :] if self._history else []
        return self.codec.opening(self.wording.window(past, self._steps_taken, observation))


AgentMaker = Callable[[], Agent[P]]


class Speaker(Protocol):
    """What agents need to know of a policy."""

    tokenizer: Any
    model: Any
    """Its generation config names tokens that end a turn."""


def agents_of(
    cfg: TrainConfig | EvalConfig, policy: Speaker, played: base.Benchmark, *, today: date | None
) -> AgentMaker[int]:
    """`agent_maker` as a configuration asks for it."""
    return agent_maker(
        cfg.benchmark,
        cfg.model.prompt,
        policy,
        context=cfg.rollout.context,
        history=cfg.rollout.history,
        today=today,
        played=played,
    )


def agent_maker(
    benchmark: Benchmark,
    prompt: str,
    policy: Speaker,
    *,
    context: str,
    history: int,
    today: date | None = None,
    played: base.Benchmark | None = None,
) -> AgentMaker[int]:
    """A function that makes a new agent per trajectory.

    Args:
        benchmark: settings of the benchmark; its wording reads responses by them.
        prompt: `compact` or `chat`.
        context: `transcript` or `window`.
        history: exchanges that a window prompt repeats.
        today: the date that chat templates with a date show; None = the clock's.
        played: the benchmark itself; one from outside brings its wordings.

    Raises:
        ChatTemplateError: episodes cannot be played with the tokenizer's chat template.
    """
    codec: Codec[int]
    if prompt == "compact":
        codec = CompactCodec(policy.tokenizer)
    else:
        codec = ChatCodec(policy.tokenizer, end_ids=generation_ends(policy.model), today=today)
        if context == "transcript" and not codec.template.keeps_thoughts:
            raise ChatTemplateError(
                "rollout.context=transcript cannot follow this model's chat template: it drops the <think> part of "
                "earlier answers, and a transcript only grows; choose rollout=window"
            )
    make_wording = wording_maker(benchmark, prompt, played)
    return lambda: Agent(make_wording(), codec, context=context, history=history)


def wording_maker(benchmark: Benchmark, prompt: str, played: base.Benchmark | None = None) -> Callable[[], Wording]:
    """What makes the wording of an episode: of ours by the settings, of others what the benchmark itself brings."""
    match benchmark, prompt:
        case Alfworld(), "compact":
            return AlfworldCompact
        case Alfworld(), "chat":
            return AlfworldChat
        case Deepsearch(), "compact":
            return DeepSearchCompact
        case Deepsearch(rules=rules, action_form=form), "chat":
            return lambda: DeepSearchChat(Reader(rules, form))
        case Webshop(), "compact":
            return WebshopCompact
        case Webshop(), "chat":
            return WebshopChat
        case CustomBenchmark(), "compact":
            return (played.wording("compact") if isinstance(played, BringsWordings) else None) or PlainCompact
        case CustomBenchmark(), "chat":
            return (played.wording("chat") if isinstance(played, BringsWordings) else None) or PlainChat
        case _:
            raise ValueError(f"no {prompt} wording for benchmark {benchmark.name!r}")
