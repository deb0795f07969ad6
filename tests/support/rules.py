"""Rules of episodes that tests play, to be varied with `dataclasses.replace`."""

from __future__ import annotations

from empg_cli.benchmarks.deepsearch.env import DeepSearchRules
from empg_cli.benchmarks.deepsearch.reward import Shaping
from empg_cli.rollout.episode import EpisodeRules

TRANSCRIPT = EpisodeRules(
    append_only=True,
    max_steps=6,
    temperature=1.0,
    max_new_tokens=6,
    max_context_tokens=2048,
    invalid_action_penalty=0.0,
    penalise_refused=False,
)
DEEPSEARCH = DeepSearchRules(
    max_steps=5,
    last_turn="any",
    top_k=3,
    snippet_words=0,
    open_tool=False,
    max_observation_chars=4000,
    action_form="any",
    reward="em",
    success_reward=1.0,
    shaping=Shaping(),
)
