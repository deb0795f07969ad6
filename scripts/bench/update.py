"""How fast is the update? Against plain forms of itself, against the machine's own speed, and as the run grows.

    python scripts/bench/update.py                     # everything, about 5 CPU minutes
    python scripts/bench/update.py --part plain --part shares

plain    one update of the default run's trajectories: ours, and with one part at a time in its plain form
shares   where the time of whole updates of the default run goes
gemm     floating-point operations of an update at hidden 256 / what this machine's matrix product does
head     log-prob + entropy at a vocabulary of 151,936 against log-probs alone
growth   cost against trajectories, turns, context and vocabulary, with the exponent of a power law

Times are CPU seconds on one thread. FLOPs of an update count what the mathematics asks for, forward and backward: 6 for
each parameter of the layers and token, 6 for each weight of the head and response token, and in attention 12 * width
for each column that a token sees. In the last layer only the tokens that responses are predicted from count, but for
its keys and values. Padding, and what a kernel computes again in the backward pass, is not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from common import Report, argument_parser, interleaved, ratio
from empg_cli.learner.optim import make_optimizer
from empg_cli.learner.update import update_policy
from empg_cli.model.policy import Policy
from empg_cli.model.scoring import CPU_CHUNK, logprob_and_entropy
from empg_cli.types import Batch
from made import made_batch, made_policy, run_config
from shares import MODEL, kernel_shares, update_shares
from update_forms import plain_forms
from update_growth import growth


def shares(report: Report, options: argparse.Namespace) -> None:
    parts, padding = update_shares(options.repeats)
    total = sum(parts.values())
    outside = sum(seconds for name, seconds in parts.items() if name not in MODEL)
    report.table(
        f"Where the CPU time of an update of experiment=demo goes (mean of {options.repeats})",
        ["", "CPU s", "%"],
        [*([name, seconds, 100 * seconds / total] for name, seconds in parts.items())],
        f"{outside / total:.1%} lies outside the model ({', '.join(MODEL)}).",
        f"{padding:.1%} of the tokens that the update's forward passes read are padding (perf/padding).",
    )
    report.table(
        "The five largest kernels of such an update (torch.profiler)",
        ["", "% of all kernels", "calls"],
        [[f"`{name}`", 100 * share, calls] for name, share, calls in kernel_shares(5)],
    )


def model_flops(policy: Policy, batch: Batch) -> float:
    shape = policy.model.config
    *inner, last = policy.model.model.layers

    def weights(*modules: torch.nn.Module) -> int:
        return sum(weight.numel() for module in modules for weight in module.parameters())

    key_value = weights(last.self_attn.k_proj, last.self_attn.v_proj)
    tokens, responses = sum(map(len, batch.row_ids)), int(batch.mask_ST.sum())
    products = (weights(*inner) + key_value) * tokens + (weights(last) - key_value) * responses
    column_ST = batch.step_start_S[:, None] + torch.arange(batch.mask_ST.shape[1])[None]
    seen = len(inner) * sum(len(row) ** 2 for row in batch.row_ids) / 2 + int(column_ST[batch.mask_ST].sum())
    flops = 6 * products + 6 * shape.vocab_size * shape.hidden_size * responses + 12 * shape.hidden_size * seen
    return float(flops)


def gemm(report: Report, options: argparse.Namespace) -> None:
    cfg = run_config("trainer.minibatches=1")
    policy = made_policy(hidden=256, layers=6, heads=4, kv_heads=2, mlp=768, vocabulary=4096)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    products = 20
    optimizer = make_optimizer(policy, cfg.trainer)
    lengths = (512, 1024, 2048)
    batches = [made_batch(2048 // length, length // 64, opening=64, observation=48, response=16) for length in lengths]

    def learn(batch: Batch) -> Callable[[], object]:
        return lambda: update_policy(policy, optimizer, batch, cfg, lr=0.0, update=0)

    variants: dict[str, Callable[[], object]] = {
        f"rows of {len(batch.row_ids[0]):,} tokens": learn(batch) for batch in batches
    }
    variants["matrix product"] = lambda: [left @ right for _ in range(products)]
    times = interleaved(variants, repeats=options.repeats)
    limit = products * 2 * 1024**3 / times["matrix product"].cpu / 1e9
    rates = [model_flops(policy, batch) / time.cpu / 1e9 for batch, time in zip(batches, times.values(), strict=False)]
    report.table(
        f"GFLOP/s of an update: hidden 256, 6 layers, MLP 768, vocabulary 4,096; {policy.num_parameters:,} parameters",
        ["", "CPU s", "GFLOP/s", "% of the matrix product"],
        [
            *([name, times[name].cpu, rate, 100 * rate / limit] for name, rate in zip(times, rates, strict=False)),
            ["matrix product 1024^3", times["matrix product"].cpu, limit, 100.0],
        ],
    )


def head(report: Report, options: argparse.Namespace) -> None:
    tokens, width, vocabulary = 256, 256, 151_936
    hidden_TD = torch.randn(tokens, width, requires_grad=True)
    weight_VD = (0.05 * torch.randn(vocabulary, width)).requires_grad_()
    target_T = torch.randint(vocabulary, (tokens,))

    def logprobs_alone() -> Tensor:
        """The usual way to save memory: chunks of a plain cross-entropy, computed again in backward."""
        chunks = zip(hidden_TD.split(CPU_CHUNK), target_T.split(CPU_CHUNK), strict=True)
        return torch.cat([-torch.utils.checkpoint.checkpoint(nll, *chunk, use_reentrant=False) for chunk in chunks])

    def nll(hidden_TD: Tensor, target_T: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(hidden_TD @ weight_VD.t(), target_T, reduction="none")

    def log_softmax_form(hidden_TD: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
        logp_TV = torch.log_softmax(hidden_TD @ weight_VD.t(), -1)
        return logp_TV.gather(1, target_T[:, None])[:, 0], -(logp_TV.exp() * logp_TV).sum(-1)

    def naive() -> tuple[Tensor, Tensor]:
        return log_softmax_form(hidden_TD, weight_VD)

    def ours() -> tuple[Tensor, Tensor]:
        return logprob_and_entropy(hidden_TD, weight_VD, target_T)

    def forward(run: Callable[[], object]) -> Callable[[], None]:
        def scored() -> None:
            with torch.no_grad():
                run()

        return scored

    def learnt(run: Callable[[], Tensor | tuple[Tensor, Tensor]]) -> Callable[[], None]:
        def learn() -> None:
            hidden_TD.grad = weight_VD.grad = None
            out = run()
            (out.sum() if isinstance(out, Tensor) else out[0].sum() + 0.001 * out[1].sum()).backward()

        return learn

    with torch.no_grad():
        exact = log_softmax_form(hidden_TD.double(), weight_VD.double())
        notes = [
            f"Largest difference of {name} from float64: log-prob {error[0]:.1e}, entropy {error[1]:.1e}."
            for name, form in (("ours", ours), ("naive", naive))
            for error in [[float((a - b).abs().max()) for a, b in zip(form(), exact, strict=True)]]
        ]
    forms: dict[str, Callable[[], Tensor | tuple[Tensor, Tensor]]] = {
        "log-probs alone, chunked": logprobs_alone,
        "log-prob + entropy, ours": ours,
        "naive, autograd": naive,
    }
    scoring = interleaved({name: forward(run) for name, run in forms.items()}, repeats=options.repeats)
    learning = interleaved({name: learnt(run) for name, run in forms.items()}, repeats=options.repeats)
    alone = "log-probs alone, chunked"
    report.table(
        f"Output head: {tokens} tokens, width {width}, vocabulary {vocabulary:,}",
        ["", "scoring CPU s", "/ alone", "with backward CPU s", "/ alone"],
        [
            [
                name,
                *(
                    cell
                    for times in (scoring, learning)
                    for cell in (times[name].cpu, ratio(times[name], times[alone]))
                ),
            ]
            for name in forms
        ],
        *notes,
    )


PARTS = {"plain": plain_forms, "shares": shares, "gemm": gemm, "head": head, "growth": growth}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be given again")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (3)")
    parser.add_argument("--tasks", type=int, default=4, help="tasks, of 8 trajectories each, in part plain (4)")
    options = parser.parse_args()
    report = Report("update", options)
    for name, run in PARTS.items():
        if not options.part or name in options.part:
            run(report, options)
    report.finish()


if __name__ == "__main__":
    main()
