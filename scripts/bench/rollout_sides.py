"""Two ways to play turns with a torch model, on any device: our engine, and `generate` over the whole history.

`python rollout_sides.py ours|generate THREADS WORK.json` is such a side on a CPU (turn_server.py).
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import numpy as np
import torch

from empg_cli.model.loading import load_folder
from empg_cli.model.policy import Policy
from empg_cli.rollout.engine import Completion, Sampling
from empg_cli.rollout.torch_engine.engine import TorchEngine
from turn_server import Play, own_stdout, serve

PAD = 0
WARM_UP = [[1] * 16] * 2


class EngineSide:
    """Keys and values stay between turns; nothing ends an answer early."""

    def __init__(self, policy: Policy) -> None:
        self._engine = TorchEngine(policy, [])
        self._rng = np.random.default_rng(0)

    def play(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        sampling = Sampling(temperature=1.0, max_new_tokens=new_tokens)

        async def answers() -> list[Completion[int]]:
            asked = [
                self._engine.generate(prompt, episode=row, draws=self._rng.random(new_tokens), sampling=sampling)
                for row, prompt in enumerate(prompts)
            ]
            return await asyncio.gather(*asked)

        return [answer.response for answer in asyncio.run(answers())]

    def end(self, episodes: int) -> None:
        """What is played next begins anew."""
        for row in range(episodes):
            self._engine.close(row)


@torch.inference_mode()
def generated(network: Any, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """Padded on the left, with the dynamic cache within a turn: what a trainer around `generate` does."""
    from transformers import GenerationConfig

    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in prompts], device=network.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=network.device)
    settings = GenerationConfig(
        max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=True, top_k=0, pad_token_id=PAD
    )
    out = network.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    assert out.shape[1] == width + new_tokens
    answers: list[list[int]] = out[:, width:].tolist()
    return answers


def open_ours(work: dict[str, Any]) -> Play:
    side = EngineSide(load_folder(work["folder"], dtype="float32", device=torch.device("cpu")))
    side.play(WARM_UP, 2)
    side.end(len(WARM_UP))
    return side.play


def open_generate(work: dict[str, Any]) -> Play:
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(work["folder"], dtype=torch.float32, attn_implementation="sdpa")

    def play(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        return generated(network, prompts, new_tokens)

    play(WARM_UP, 2)
    return play


def main() -> None:
    side, threads, work_file = sys.argv[1:]
    os.environ["HF_HUB_OFFLINE"] = "1"
    channel = own_stdout()
    torch.set_num_threads(int(threads))
    serve(channel, {"ours": open_ours, "generate": open_generate}[side], work_file)


if __name__ == "__main__":
    main()
