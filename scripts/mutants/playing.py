"""Faults in agents, rollout and sampling."""

from __future__ import annotations

from scripts.mutants.mutant import Mutant

_AGENTS = ("unit/agents/test_agents.py", "unit/agents/test_webshop_agents.py")
_SCHEDULE = ("unit/rollout/test_continuous_batching.py",)
_ROLLOUT = ("unit/rollout/test_collect.py", "unit/rollout/test_rollout_failures.py", "parity/test_torch_engine.py")

PLAYING = (
    Mutant(
        "oldest-history",
        "src/empg_cli/agents/agent.py",
        "self._past[-self._history :] if",
        "self._past[: self._history] if",
        "a window prompt repeats the first exchanges, not the last",
        _AGENTS,
    ),
    Mutant(
        "steps-counted-twice",
        "src/empg_cli/agents/agent.py",
        "self._steps_taken += 1",
        "self._steps_taken += 2",
        "prompts misnumber the steps",
        _AGENTS,
    ),
    Mutant(
        "action-beside-its-result",
        "src/empg_cli/agents/agent.py",
        "Exchange(self._observation.text, action)",
        "Exchange(observation.text, action)",
        "the history shows each action beside what it led to",
        _AGENTS,
    ),
    Mutant(
        "fallback-from-the-front",
        "src/empg_cli/agents/tags.py",
        "text[-fallback_characters:]",
        "text[:fallback_characters]",
        "of a malformed answer the first characters are carried out",
        _AGENTS,
    ),
    Mutant(
        "end-token-twice",
        "src/empg_cli/agents/codec.py",
        "[*([] if ended else [self._end]),",
        "[self._end,",
        "a transcript of the compact form closes every turn twice",
        _AGENTS,
    ),
    Mutant(
        "malformed-for-free",
        "src/empg_cli/rollout/episode.py",
        "invalid = not step.well_formed or (",
        "invalid = (",
        "malformed responses cost nothing",
        _ROLLOUT,
    ),
    Mutant(
        "penalty-not-taken",
        "src/empg_cli/rollout/episode.py",
        "step.reward = result.reward - step.penalty",
        "step.reward = result.reward",
        "the penalty is noted and not paid",
        _ROLLOUT,
    ),
    Mutant(
        "no-room-for-the-response",
        "src/empg_cli/rollout/episode.py",
        "len(prompt) + rules.max_new_tokens",
        "len(prompt)",
        "the last response runs out of the context",
        _ROLLOUT,
    ),
    Mutant(
        "a-group-of-twins",
        "src/empg_cli/rollout/collect.py",
        "[*stream, trajectory.group - first_group, trajectory.index]",
        "[*stream, trajectory.group - first_group]",
        "all attempts at a task draw the same numbers",
        ("unit/rollout/test_sampling.py",),
    ),
    Mutant(
        "turns-in-step",
        "src/empg_cli/rollout/torch_engine/engine.py",
        "self._patience > 0 and len(self._waiting) < READ_TOGETHER * len(self._reader)",
        "True",
        "every turn waits for the longest answer of all episodes",
        _SCHEDULE,
    ),
    Mutant(
        "prompts-wait-for-ever",
        "src/empg_cli/rollout/torch_engine/engine.py",
        "self._patience > 0 and ",
        "",
        "a single prompt waits for others as long as they decode",
        _SCHEDULE,
    ),
    Mutant(
        "moved-row-without-its-keys",
        "src/empg_cli/rollout/torch_engine/reader.py",
        "self._cache.copy(last.slot, [gone.slot], 0, len(last.read))",
        "",
        "an episode goes on with the keys of another one that is over",
        _SCHEDULE,
    ),
    Mutant(
        "stale-version",
        "src/empg_cli/rollout/episode.py",
        "step.policy_version = completion.policy_version",
        "step.policy_version = 0",
        "steps do not say which policy sampled them",
        ("unit/test_loop.py",),
    ),
    Mutant(
        "network-steps-one-by-one",
        "src/empg_cli/rollout/stepping.py",
        "2 * len(self._waiting) < self._episodes",
        "False",
        "environments that wait for a network make a call each",
        ("unit/benchmarks/test_stepping.py",),
    ),
    Mutant(
        "network-steps-of-all",
        "src/empg_cli/rollout/stepping.py",
        "2 * len(self._waiting) < self._episodes",
        "len(self._waiting) < self._episodes",
        "a network step waits for the slowest episode",
        ("unit/benchmarks/test_stepping.py",),
    ),
    Mutant(
        "sampling-at-temperature-one",
        "src/empg_cli/rollout/torch_engine/sampling.py",
        "if temperature not in (0, 1):",
        "if False:",
        "rollout.temperature is not read",
        _ROLLOUT,
    ),
    Mutant(
        "nucleus-too-small",
        "src/empg_cli/rollout/torch_engine/sampling.py",
        "before_BV = sorted_BV.cumsum(-1) - sorted_BV",
        "before_BV = sorted_BV.cumsum(-1)",
        "the token that reaches top_p is cut",
        _ROLLOUT,
    ),
)
