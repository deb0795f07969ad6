"""A side of a comparison of rollouts, in a process of its own: it plays a turn when told to and says what that took.

The work is a JSON file: the model's folder and, for each turn, what each episode observes and how many tokens each
samples. Here is nothing but the standard library, since the environment of vLLM holds no part of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Play = Callable[[list[list[int]], int], list[list[int]]]
"""From the whole history of each episode and a number of tokens to the answer of each, of so many tokens."""


def own_stdout() -> Any:
    """Standard output, for this module alone: what libraries print goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def serve(channel: Any, open_side: Callable[[dict[str, Any]], Play], work_file: str, **facts: str) -> None:
    """Load the model, then play the turn that each line of standard input asks for, in order from 0."""
    work = json.loads(Path(work_file).read_text())
    play = open_side(work)
    _say(channel, facts)
    histories: list[list[int]] = [[] for _ in work["turns"][0]["prompts"]]
    for line in sys.stdin:
        turn = work["turns"][int(line)]
        prompts = [past + new for past, new in zip(histories, turn["prompts"], strict=True)]
        cpu, wall = time.process_time(), time.perf_counter()
        answers = play(prompts, turn["new_tokens"])
        taken = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        histories = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        _say(channel, taken | {"tokens": [len(answer) for answer in answers]})


def _say(channel: Any, what: dict[str, Any]) -> None:
    channel.write(json.dumps(what) + "\n")
    channel.flush()
