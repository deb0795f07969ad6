"""An agent plays one trajectory: observations in, prompt token ids out; response token ids in, action out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from empg_cli.agents.alfworld_chat import AlfworldChat
from empg_cli.agents.alfworld_compact import AlfworldCompact
from empg_cli.agents.chat_template import ChatTemplateError, generation_ends
from empg_cli.agents.codec import ChatCodec, Codec, CompactCodec
from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.agents.deepsearch_compact import DeepSearchCompact
from empg_cli.agents.webshop_chat import WebshopChat
from empg_cli.agents.webshop_compact import WebshopCompact
from empg_cli.agents.wording import Exchange, Parsed, Wording
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.deepsearch.rules import Reader
from empg_cli.config.benchmarks import Alfworld, Benchmark, Webshop
from empg_cli.config.deepsearch import Deepsearch

if TYPE_CHECKING:  # it brings torch: seconds
    from empg_cli.model.policy import Policy


class Agent:
    """Context building for one trajectory.

    `transcript` returns only the tokens that are new since the last response; `window` returns whole prompts that
    repeat the last `history` exchanges.
    """

    def __init__(self, wording: Wording, codec: Codec, *, context: str, history: int) -> None:
        self.wording, self.codec = wording, codec
        self._append_only, self._history = context == "transcript", history
        self._past: list[Exchange] = []
        self._steps_taken = 0
        self._observation = Observation("", ())

    def start(self, observation: Observation) -> list[int]:
        self._observation = observation
        return self.codec.opening(self.wording.opening(observation))

    def parse(self, response_ids: Sequence[int], *, ended: bool = True) -> Parsed:
        """The action of a response.

        Args:
            ended: the response closed its turn itself, it was not cut.
        """
        parsed = self.wording.parse(self.codec.thought + self.codec.decode(response_ids))
        return parsed if ended or not self.codec.needs_end else replace(parsed, well_formed=False)

    def kept(self, response_ids: list[int], parsed: Parsed) -> list[int]:
        """The beginning of a response that stays in the context and trains."""
        return response_ids if parsed.surplus is None else self.codec.without(response_ids, parsed.surplus)

    def next_prompt(self, action: str, observation: Observation, *, ended: bool) -> list[int]:
        """Prompt for the step after `action`, which led to `observation`."""
        self._steps_taken += 1
        self._past.append(Exchange(self._observation.text, action))
        self._observation = observation
        if self._append_only:
            return self.codec.turn(self.wording.turn(action, observation), ended=ended)
        past = self._past[-self._history :] if self._history else []
        return self.codec.opening(self.wording.window(past, self._steps_taken, observation))


AgentMaker = Callable[[], Agent]


def agent_maker(
    benchmark: Benchmark, prompt: str, policy: Policy, *, context: str, history: int, today: date | None = None
) -> AgentMaker:
    """A function that makes a new agent per trajectory.

    Args:
        benchmark: settings of the benchmark; its wording reads responses by them.
        prompt: `compact` or `chat`.
        context: `transcript` or `window`.
        history: exchanges that a window prompt repeats.
        today: the date that chat templates with a date show; None = the clock's.

    Raises:
        ChatTemplateError: episodes cannot be played with the tokenizer's chat template.
    """
    codec: Codec
    if prompt == "compact":
        codec = CompactCodec(policy.tokenizer)
    else:
        codec = ChatCodec(policy.tokenizer, end_ids=generation_ends(policy.model), today=today)
        if context == "transcript" and not codec.template.keeps_thoughts:
            raise ChatTemplateError(
                "rollout.context=transcript cannot follow this model's chat template: it drops the <think> part of "
                "earlier answers, and a transcript only grows; choose rollout=window"
            )
    make_wording = wording_maker(benchmark, prompt)
    return lambda: Agent(make_wording(), codec, context=context, history=history)


def wording_maker(benchmark: Benchmark, prompt: str) -> Callable[[], Wording]:
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
        case _:
            raise ValueError(f"no {prompt} wording for benchmark {benchmark.name!r}")
