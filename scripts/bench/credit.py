"""How fast is the credit of an update? Vectorised EMPG against the same arithmetic in Python loops.

    python scripts/bench/credit.py                 # 512 trajectories x 50 steps x 100 tokens
    python scripts/bench/credit.py --trajectories 64

Times are medians of CPU seconds on one thread. The last line sets EMPG beside the least that an update must do with the
same tokens: forward and backward of a model of 0.3 M parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from common import Report, argument_parser, interleaved
from empg_cli.algorithms.empg import modulate, step_entropy
from empg_cli.algorithms.losses import clipped_surrogate


def credit_by_loops(advantage_N: Tensor, episodes: list[list[Tensor]]) -> list[list[float]]:
    """The paper's pseudo-code as written: step by step, Python floats. `episodes`: token entropies of each step."""
    entropy = [[tokens.mean().item() for tokens in steps] for steps in episodes]
    flat = [h for steps in entropy for h in steps]
    low, high = min(flat), max(flat)
    normalised = [[(h - low) / (high - low + 1e-8) for h in steps] for steps in entropy]
    scale = sum(math.exp(-h) for steps in normalised for h in steps) / len(flat)
    credit = []
    for advantage, steps in zip(advantage_N.tolist(), normalised, strict=True):
        row = [advantage * math.exp(-h) / scale for h in steps]
        for t in range(len(steps) - 1):
            row[t] += 0.05 * math.exp(-steps[t + 1])
        credit.append(row)
    mean = sum(value for row in credit for value in row) / len(flat)
    return [[value - mean for value in row] for row in credit]


def token_form(advantage_N: Tensor, episodes: list[list[Tensor]], advantage_NT: Tensor) -> Tensor:
    """The pseudo-code to its end: every segment of the token matrix of advantages is written in place."""
    for row, credit in enumerate(credit_by_loops(advantage_N, episodes)):
        start = 0
        for value, tokens in zip(credit, episodes[row], strict=True):
            advantage_NT[row, start : start + len(tokens)] = value
            start += len(tokens)
    return advantage_NT


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--trajectories", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=100)
    shape = parser.parse_args()
    report = Report("credit", shape)
    torch.manual_seed(0)

    steps = shape.trajectories * shape.steps
    entropy_ST = torch.rand(steps, shape.tokens)
    mask_ST = torch.ones(steps, shape.tokens, dtype=torch.bool)
    advantage_N = torch.randn(shape.trajectories)
    advantage_S = advantage_N.repeat_interleave(shape.steps)
    next_S = torch.arange(1, steps + 1)
    next_S[shape.steps - 1 :: shape.steps] = -1
    episodes = [list(rows.unbind()) for rows in entropy_ST.view(shape.trajectories, shape.steps, shape.tokens)]

    def vectorised() -> Tensor:
        return modulate(advantage_S, step_entropy(entropy_ST, mask_ST), next_S)

    advantage_NT = torch.zeros(shape.trajectories, shape.steps * shape.tokens)
    loops = torch.tensor(credit_by_loops(advantage_N, episodes)).flatten()
    difference = (vectorised() - loops).abs().max().item()

    times = interleaved(
        {"vectorised": vectorised, "loops": lambda: token_form(advantage_N, episodes, advantage_NT)}, repeats=5
    )
    fast, slow = times["vectorised"].cpu, times["loops"].cpu
    update = learning_seconds_per_token() * mask_ST.numel()
    report.table(
        f"EMPG for {shape.trajectories} trajectories x {shape.steps} steps x {shape.tokens} tokens",
        ["what", "CPU ms", "in vectorised EMPG"],
        [
            ["EMPG, vectorised", fast * 1e3, 1.0],
            ["EMPG, Python loops", slow * 1e3, slow / fast],
            ["forward and backward of the smallest model", update * 1e3, update / fast],
        ],
        f"largest difference of the two EMPGs {difference:.1e}; vectorised EMPG is {fast / update:.4%} of learning",
    )
    report.finish()


def learning_seconds_per_token() -> float:
    """CPU seconds that one sampled token costs in forward and backward of a model of 0.3 M parameters.

    A bound from below for an update: no rollout, no scoring, no optimiser, no observation tokens, a small vocabulary.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=512,
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=192,
        )
    )
    token_BT = torch.randint(0, 512, (8, 256))

    def learn() -> None:
        log_pi = torch.log_softmax(model(token_BT).logits, dim=-1)
        logprob_ST = log_pi.gather(2, token_BT[..., None])[..., 0]
        mask_ST = torch.ones_like(token_BT, dtype=torch.bool)
        policy = clipped_surrogate(
            logprob_ST,
            logprob_ST.detach(),
            torch.ones(len(token_BT)),
            mask_ST,
            clip_low=0.2,
            clip_high=0.2,
            num_tokens=token_BT.numel(),
        )
        policy.loss.backward()

    return interleaved({"learn": learn}, repeats=5)["learn"].cpu / token_BT.numel()


if __name__ == "__main__":
    main()
