"""One episode: the turns between an agent, a rollout engine and an environment, from reset to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import P
from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.benchmarks.border import EnvironmentFailed
from empg_cli.config.node import BenchmarkNode as BenchmarkConfig
from empg_cli.config.rollout import Rollout
from empg_cli.pulse import beat
from empg_cli.rollout.engine import Completion, Engine, NoCompletion, Sampling
from empg_cli.rollout.outcomes import end_of, reported_numbers
from empg_cli.rollout.stepping import Stepper
from empg_cli.signals import obey
from empg_cli.types import Status, Step, Trajectory


@dataclass(frozen=True, slots=True)
class EpisodeRules:
    """What holds for every episode of a rollout."""

    append_only: bool
    """Transcript context: prompts hold only what is new."""
    max_steps: int
    temperature: float
    max_new_tokens: int
    max_context_tokens: int
    invalid_action_penalty: float
    penalise_refused: bool
    """Refused actions are invalid too, not only malformed ones (`invalid_action_scope=admissible`)."""
    top_p: float = 1.0
    max_concurrent: int = 0
    """Episodes that are played at once; 0 = all."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.max_new_tokens, self.top_p)


def episode_rules(
    rollout: Rollout, benchmark: BenchmarkConfig, *, temperature: float, top_p: float = 1.0
) -> EpisodeRules:
    """The rules that the config asks for, with the sampling of training or evaluation."""
    return EpisodeRules(
        append_only=rollout.context == "transcript",
        max_steps=benchmark.max_steps,
        temperature=temperature,
        max_new_tokens=rollout.max_new_tokens,
        max_context_tokens=rollout.max_context_tokens,
        invalid_action_penalty=benchmark.invalid_action_penalty,
        penalise_refused=benchmark.invalid_action_scope == "admissible",
        top_p=top_p,
        max_concurrent=rollout.places,
    )


async def play(
    trajectory: Trajectory,
    agent: Agent[P],
    engine: Engine[P],
    stepper: Stepper,
    rules: EpisodeRules,
    rng: np.random.Generator,
) -> None:
    """Fill a trajectory. Whatever the environment or the engine's server does, it ends with a status.

    What the agent does not keep of a response (the text after its action) neither trains nor stays in the context.
    """
    name = (trajectory.group, trajectory.index)
    past: list[P] = []
    try:
        env, observation = stepper.begin(trajectory)
        prompt = agent.start(observation)
        while True:
            obey()
            needed = len(past) + len(prompt) + rules.max_new_tokens
            if needed > rules.max_context_tokens:
                trajectory.status, trajectory.tokens_needed = Status.CONTEXT_OVERFLOW, needed
                return
            completion = await engine.generate(
                [*past, *prompt], episode=name, draws=rng.random(rules.max_new_tokens), sampling=rules.sampling
            )
            response, step = understood(agent, prompt, completion)
            step.observation = observation.text
            trajectory.steps.append(step)
            result = await stepper.step(env, step.action)
            beat()
            settle(step, result, rules)
            trajectory.info = reported_numbers(result.info)
            if (end := end_of(result, steps=len(trajectory.steps), max_steps=rules.max_steps)) is not None:
                trajectory.score, trajectory.success, trajectory.status = result.score, result.success, end
                return
            observation = Observation(result.text, result.actions)
            past += [*prompt, *response] if rules.append_only else []
            is_closed = completion.ended and response == completion.response
            prompt = agent.next_prompt(step.action, observation, ended=is_closed)
    except NoCompletion as none:
        trajectory.status, trajectory.error = none.status, none.reason
    except EnvironmentFailed as failed:
        stepper.end(trajectory, failed)
    finally:
        engine.close(name)


def understood(agent: Agent[P], prompt: list[P], completion: Completion[P]) -> tuple[list[P], Step]:
    """What stays of a response, and the step that it makes."""
    parsed = agent.parse(completion.response, ended=completion.ended)
    response = agent.kept(completion.response, parsed)
    step = agent.codec.step(prompt, response)
    kept = len(step.response_ids)
    step.logprobs = completion.logprobs[:kept]
    step.entropies = [float("nan")] * kept if completion.entropies is None else completion.entropies[:kept]
    step.action, step.well_formed = parsed.action, parsed.well_formed
    step.was_cut = not (completion.ended or parsed.surplus is not None)
    step.policy_version = completion.policy_version
    return response, step


def settle(step: Step, result: StepResult, rules: EpisodeRules) -> None:
    """Note what the environment made of a step: its reward, less what an invalid action costs, and the score so far."""
    step.admissible, step.score = result.valid, result.score
    invalid = not step.well_formed or (rules.penalise_refused and not result.valid)
    step.penalty = rules.invalid_action_penalty if invalid else 0.0
    step.reward = result.reward - step.penalty
