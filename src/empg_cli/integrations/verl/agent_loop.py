"""verl's agent loop over our environments: our prompts, parsing, rewards and limits; verl's servers sample."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
from transformers import GenerationConfig
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from empg_cli.agents.agent import AgentMaker, agents_of
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.integrations.playing import task_of_row
from empg_cli.integrations.verl import NAME, STEPS
from empg_cli.integrations.verl.settings import Given, given, read
from empg_cli.integrations.verl.steps import StepFacts
from empg_cli.rollout.engine import Completion, NoCompletion, Sampling
from empg_cli.rollout.episode import EpisodeRules, episode_rules, play
from empg_cli.rollout.stepping import Stepper
from empg_cli.types import Status, Step, Task, Trajectory


class EpisodeFailed(Exception):  # noqa: N818 (what has happened to an episode)
    """It has no score; verl counts it among the failed sessions of its prompt."""


@register(NAME)
class EmpgAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """One session is one episode. A window gives a row a step, a transcript one row."""

    def __init__(self, *args: Any, hf_model_type: str | None = None, **kwargs: Any) -> None:
        """hf_model_type: verl chooses its maker of prompts by it, which is not used here, and refuses tokenizers that
        are not the family's, such as those of our tiny agents."""
        try:
            super().__init__(*args, hf_model_type=hf_model_type, **kwargs)
        except ValueError:
            super().__init__(*args, **kwargs)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """
        Args:
            kwargs: of the row of the dataset; `extra_info` says which task.

        Returns:
            None of an episode whose first prompt did not fit.

        Raises:
            EpisodeFailed: its environment failed, or no server answered.
        """
        table = _table(given(self.config), str(self.config.actor_rollout_ref.model.path), self.tokenizer)
        task, session = table.task(kwargs["extra_info"]), int(kwargs.get("session_id", 0))
        trajectory = Trajectory(task, group=0, index=session)
        engine = ServerEngine(self.server_manager, table.make_agent().codec.stop_ids, sampling_params)
        with table.stepper.episode():
            await play(
                trajectory, table.make_agent(), engine, table.stepper, table.rules, np.random.default_rng(session)
            )
        if not trajectory.is_scored:
            raise EpisodeFailed(f"{task.task_id}: {trajectory.error}")
        return list(outputs(trajectory, append_only=table.rules.append_only, seconds=engine.seconds))


class ServerEngine:
    """verl's servers as an engine of ours. They draw by themselves, and show no entropies."""

    is_deterministic = False

    def __init__(self, servers: Any, stop_ids: Sequence[int], params: dict[str, Any]) -> None:
        """params: verl's sampling parameters; temperature and the cut of the distribution are its own."""
        self._servers, self._stop_ids, self._params = servers, stop_ids, params
        self._request = uuid4().hex
        self.seconds = 0.0
        """Waited for answers."""

    async def generate(
        self, prompt: Sequence[int], *, episode: Hashable, draws: np.ndarray, sampling: Sampling
    ) -> Completion[int]:
        params = self._params | {"max_tokens": sampling.max_new_tokens, "stop_token_ids": list(self._stop_ids)}
        begun = time.monotonic()
        # One id for all turns: verl sends them to the same server, which has their beginning in its cache.
        answer = await self._servers.generate(request_id=self._request, prompt_ids=list(prompt), sampling_params=params)
        self.seconds += time.monotonic() - begun
        ids = list(answer.token_ids)
        if not ids:
            raise NoCompletion(Status.ENV_ERROR, f"a server gave no token ({answer.stop_reason})")
        version = answer.extra_fields.get("max_global_steps")
        return Completion(
            ids, list(answer.log_probs or ()), None, ended=ids[-1] in self._stop_ids, policy_version=version or 0
        )

    def close(self, episode: Hashable) -> None: ...

    def revive(self) -> None: ...


def outputs(trajectory: Trajectory, *, append_only: bool, seconds: float) -> Iterator[AgentLoopOutput]:
    """An episode as verl's rows, each with the reward of the whole episode."""
    rows = [trajectory.steps] if append_only and trajectory.steps else [[step] for step in trajectory.steps]
    for row in rows:
        ids, mask, logprobs = _response(row)
        versions = [step.policy_version for step in row]
        yield AgentLoopOutput(
            prompt_ids=row[0].prompt_ids,
            response_ids=ids,
            response_mask=mask,
            response_logprobs=logprobs,
            reward_score=trajectory.reward,
            num_turns=2 * len(trajectory.steps),
            metrics=AgentLoopMetrics(generate_sequences=seconds),
            extra_fields={
                STEPS: [_facts(step) for step in row],
                # verl's names: acc is the first of its numbers of a validation
                "reward_extra_info": {
                    "acc": float(trajectory.success),
                    "score": trajectory.score,
                    "task_reward": trajectory.task_reward,
                },
                "min_global_steps": min(versions),
                "max_global_steps": max(versions),
            },
        )


def _response(row: Sequence[Step]) -> tuple[list[int], list[int], list[float] | None]:
    """All that follows a row's first prompt: ids, 1 where they were sampled, and log-probs if all are known."""
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for number, step in enumerate(row):
        seen = step.prompt_ids if number else []
        ids += [*seen, *step.response_ids]
        mask += [0] * len(seen) + [1] * len(step.response_ids)
        logprobs += [0.0] * len(seen) + step.logprobs
    return ids, mask, logprobs if len(logprobs) == len(ids) else None


def _facts(step: Step) -> StepFacts:
    return {
        "reward": step.reward,
        "penalty": step.penalty,
        "observation": step.observation,
        "is_valid": step.well_formed and step.admissible,
    }


@dataclass(frozen=True, slots=True)
class Table:
    """What all episodes of a worker share."""

    benchmark: Benchmark
    make_agent: AgentMaker[int]
    rules: EpisodeRules
    stepper: Stepper

    def task(self, info: dict[str, Any]) -> Task:
        """
        Raises:
            UserError: this machine has other tasks than the one that wrote the dataset.
        """
        return task_of_row(self.benchmark, info["split"], int(info["index"]), info["task_id"])


@lru_cache(maxsize=4)
def _table(where: Given, model: str, tokenizer: Any) -> Table:
    """
    Args:
        model: its folder or hub id; its generation config names tokens that end a turn.
    """
    cfg = read(where.config)
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    speaker = SimpleNamespace(tokenizer=tokenizer, model=SimpleNamespace(generation_config=_generation_config(model)))
    return Table(
        benchmark,
        agents_of(cfg, speaker, benchmark, today=where.prompt_date),
        episode_rules(cfg.rollout, cfg.benchmark, temperature=cfg.rollout.temperature),
        Stepper(benchmark, in_order=False),
    )


def _generation_config(model: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(model)
    except OSError:  # it has none
        return None
