"""Play episodes: the loop over turns between agents, a rollout engine and environments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from empg_cli.agents.agent import Agent, AgentMaker
from empg_cli.benchmarks.base import Benchmark, Env, Observation, StepResult
from empg_cli.config.node import BenchmarkNode as BenchmarkConfig
from empg_cli.config.schema import Rollout
from empg_cli.errors import UserError
from empg_cli.rollout.engine import Engine, NoResponse, Response
from empg_cli.rollout.info import reported_numbers
from empg_cli.rollout.stepping import describe_failure, step_all
from empg_cli.types import Status, Step, Task, Trajectory

Progress = Callable[[int, int], None]
"""Called with (episodes finished, episodes in all)."""


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
        max_concurrent=rollout.max_concurrent,
    )


class NothingFits(UserError):  # noqa: N818 (a sentence for the user)
    """Not one episode could take its first step."""


def refuse_if_nothing_fits(trajectories: Sequence[Trajectory], rules: EpisodeRules) -> None:
    """One clear message when every first prompt was too long: there is nothing to train on or to judge.

    Raises:
        NothingFits: says which limit is too small, and what would fit.
    """
    needed = [t.tokens_needed for t in trajectories if t.status is Status.CONTEXT_OVERFLOW and not t.steps]
    if not needed or len(needed) < len(trajectories) or not min(needed):
        return
    new, few, many = rules.max_new_tokens, min(needed), max(needed)
    raise NothingFits(
        f"rollout.max_context_tokens={rules.max_context_tokens} is too small: the first prompts of all {len(needed)} "
        f"episodes have {few - new} to {many - new} tokens, and a response takes up to rollout.max_new_tokens={new}\n"
        f"  Set rollout.max_context_tokens to {many} or more"
        + (", and to more the longer a transcript may grow." if rules.append_only else ".")
    )


class _Episode:
    """One trajectory while it is being played."""

    def __init__(self, trajectory: Trajectory, env: Env, agent: Agent, rng: np.random.Generator) -> None:
        self.trajectory, self.env, self.agent, self.rng = trajectory, env, agent, rng
        self._observation = ""
        self.prompt: list[int] = []
        self._context_tokens = 0
        self._closed_turn = False
        """The last response holds the end of its turn."""
        self.done = False
        try:
            observation = env.reset()
        except Exception as error:  # the border to the environment, as in `step_all`
            self._fail(error)
            return
        self._observation = observation.text
        self.prompt = agent.start(observation)

    def fits(self, rules: EpisodeRules) -> bool:
        """Whether the next prompt and a full response stay within the context; ends the episode if not."""
        used = self._context_tokens if rules.append_only else 0
        needed = used + len(self.prompt) + rules.max_new_tokens
        if needed <= rules.max_context_tokens:
            return True
        self.trajectory.tokens_needed = needed
        self._end(Status.CONTEXT_OVERFLOW)
        return False

    def act(self, response: Response) -> str:
        """Note a sampled response as the next step; returns the action for the environment.

        What the agent does not keep of it (the text after its action) neither trains nor stays in the context.
        """
        parsed = self.agent.parse(response.token_ids, ended=response.ended)
        kept = self.agent.kept(response.token_ids, parsed)
        self._closed_turn = response.ended and kept == response.token_ids
        self.trajectory.steps.append(
            Step(
                prompt_ids=self.prompt,
                response_ids=kept,
                logprobs=response.logprobs[: len(kept)],
                entropies=response.entropies[: len(kept)],
                action=parsed.action,
                observation=self._observation,
                well_formed=parsed.well_formed,
                was_cut=not (response.ended or parsed.surplus is not None),
            )
        )
        self._context_tokens += len(self.prompt) + len(kept)
        return parsed.action

    def observe(self, result: StepResult | BaseException, rules: EpisodeRules) -> None:
        """Note what the environment made of the last step, and build the next prompt."""
        if isinstance(result, BaseException):
            self._fail(result)
            return
        step = self.trajectory.steps[-1]
        step.admissible = result.valid
        invalid = not step.well_formed or (rules.penalise_refused and not result.valid)
        step.penalty = rules.invalid_action_penalty if invalid else 0.0
        step.reward = result.reward - step.penalty
        self._observation = result.text
        self.trajectory.info = reported_numbers(result.info)
        if result.done:
            self._finish(result, rules)
        else:
            observation = Observation(result.text, result.actions)
            self.prompt = self.agent.next_prompt(step.action, observation, ended=self._closed_turn)

    def end_without(self, response: NoResponse) -> None:
        """The policy's server could not answer."""
        self.trajectory.error = response.reason
        self._end(response.status)

    def _finish(self, result: StepResult, rules: EpisodeRules) -> None:
        self.trajectory.score, self.trajectory.success = result.score, result.success
        out_of_steps = len(self.trajectory.steps) >= rules.max_steps
        self._end(Status.SUCCESS if result.success else Status.STEP_LIMIT if out_of_steps else Status.FAILED)

    def _fail(self, error: BaseException) -> None:
        self.trajectory.error = describe_failure(error, self.trajectory.task)
        self._end(Status.ENV_ERROR)

    def _end(self, status: Status) -> None:
        self.trajectory.status = status
        self.done = True


def collect(
    engine: Engine,
    benchmark: Benchmark,
    make_agent: AgentMaker,
    tasks: Sequence[Task],
    *,
    group_size: int,
    rules: EpisodeRules,
    stream: Sequence[int],
    first_group: int = 0,
    progress: Progress | None = None,
) -> list[Trajectory]:
    """Play `group_size` episodes of every task in step; a finished episode leaves its place to the next one waiting.

    Args:
        stream: integers that name the source of randomness (seed, update, ...). Each episode draws from its own
            generator keyed by (stream, number of its task, index), so it does not depend on the others.
        first_group: the groups are numbered from here. An update that plays several batches gives each its own range,
            and nothing renumbers a group later.

    Returns:
        len(tasks) * group_size trajectories, group by group.
    """
    trajectories = [
        Trajectory(task, group, index) for group, task in enumerate(tasks, first_group) for index in range(group_size)
    ]

    def begin() -> Iterator[_Episode]:
        for trajectory in trajectories:
            key = np.random.SeedSequence([*stream, trajectory.group - first_group, trajectory.index])
            rng = np.random.Generator(np.random.Philox(key))
            yield _Episode(trajectory, benchmark.make_env(trajectory.task), make_agent(), rng)

    waiting = begin()
    places = min(rules.max_concurrent or len(trajectories), len(trajectories))
    session = engine.start(places, append_only=rules.append_only)
    live = list(islice(waiting, places))
    started = places
    while live:
        rows = [row for row, episode in enumerate(live) if not episode.done and episode.fits(rules)]
        session.keep(rows)
        live = [live[row] for row in rows]
        new = list(islice(waiting, places - len(live)))
        if progress:
            progress(started - len(live), len(trajectories))
        started += len(new)
        if new:
            session.add(len(new))
            live += new
            continue  # an episode may be over before its first turn
        if not live:
            break
        responses = session.respond(
            [episode.prompt for episode in live],
            [episode.rng.random(rules.max_new_tokens) for episode in live],
            max_new_tokens=rules.max_new_tokens,
            temperature=rules.temperature,
            top_p=rules.top_p,
        )
        answered = []
        actions = []
        for episode, response in zip(live, responses, strict=True):
            if isinstance(response, NoResponse):
                episode.end_without(response)
            else:
                answered.append(episode)
                actions.append(episode.act(response))
        if rules.append_only:
            session.cut([[] if episode.done else episode.trajectory.steps[-1].response_ids for episode in live])
        results = step_all(benchmark, [episode.env for episode in answered], actions)
        for episode, result in zip(answered, results, strict=True):
            episode.observe(result, rules)
    return trajectories
