"""Episodes of chat length in token ids: what an environment shows, and how many tokens are sampled in each turn.

A group shares its opening prompt. In one turn all episodes sample equally many tokens, so no side waits for the longest
answer and all sides sample as many.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from empg_cli.types import Step, Task, Trajectory
from rollout import Prompts, Turn

Range = tuple[int, int]
"""From and to, both included."""


@dataclass(frozen=True, slots=True)
class ChatWork:
    episodes: int
    turns: int
    group_size: int = 8
    opening: Range = (300, 500)
    observed: Range = (100, 200)
    """Tokens before each turn but the first."""
    sampled: Range = (30, 60)

    def play(self, vocabulary: int) -> list[Turn]:
        """The same episodes each time."""
        rng = np.random.default_rng(0)

        def texts(count: int, length: Range) -> Prompts:
            return [rng.integers(1, vocabulary, rng.integers(length[0], length[1] + 1)).tolist() for _ in range(count)]

        openings = texts(-(-self.episodes // self.group_size), self.opening)
        prompts = [[list(openings[row // self.group_size]) for row in range(self.episodes)]]
        prompts += [texts(self.episodes, self.observed) for _ in range(self.turns - 1)]
        return [Turn(new, int(rng.integers(self.sampled[0], self.sampled[1] + 1))) for new in prompts]


def longest(turns: Sequence[Turn]) -> int:
    """Tokens of the longest episode, answers included."""
    lengths = [sum(len(turn.prompts[row]) for turn in turns) for row in range(len(turns[0].prompts))]
    return max(lengths) + sum(turn.new_tokens for turn in turns)


def work_file(folder: Path, turns: Sequence[Turn], *, dtype: str, eager: bool) -> dict[str, Any]:
    """What turn_server.py and vllm_side.py read. vLLM gets the memory to hold every episode to its end, in blocks of
    128 tokens, and a half more.

    Args:
        eager: no compiled graphs (vLLM's `enforce_eager`).
    """
    config, most = json.loads((folder / "config.json").read_text()), longest(turns)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    values = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim
    per_token = values * {"float32": 4, "bfloat16": 2}[dtype]
    return {
        "folder": str(folder),
        "dtype": dtype,
        "eager": eager,
        "longest": most,
        "cache_bytes": int(1.5 * per_token * len(turns[0].prompts) * (most + 128)),
        "turns": [asdict(turn) for turn in turns],
    }


def played(turns: Sequence[Turn], *, group_size: int, vocabulary: int) -> list[Trajectory]:
    """Trajectories of these episodes with random answers, every second one a success.

    Old log-probs are those of equal odds, which no policy gave: another loss, at the same cost.
    """
    rng = np.random.default_rng(1)
    logprob, entropy = -float(np.log(vocabulary)), float(np.log(vocabulary))
    task = Task("chat", "chat", "train")
    trajectories = []
    for row in range(len(turns[0].prompts)):
        steps = [
            Step(
                turn.prompts[row],
                rng.integers(1, vocabulary, turn.new_tokens).tolist(),
                [logprob] * turn.new_tokens,
                [entropy] * turn.new_tokens,
            )
            for turn in turns
        ]
        steps[-1].reward = float(row % 2)
        trajectories.append(Trajectory(task, row // group_size, row % group_size, steps))
    return trajectories
