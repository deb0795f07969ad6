"""EMPG on a batch that another trainer has played: credit for its steps, and one gradient step in plain torch.

In: rewards, groups, the entropy of every token, and where the steps are. Out: an advantage for every token, [N, T].
Dimensions: N trajectories, S steps, T tokens. Equation numbers are those of docs/algorithms.md (arXiv 2509.09265).
"""

# %% The batch: two attempts at one task, a row each, as verl and TRL lay them out

import torch

from empg_cli.algorithms.advantages import group_relative
from empg_cli.algorithms.empg import future_clarity, gradient_scale, modulate, normalise_entropy, step_entropy
from empg_cli.algorithms.losses import clipped_surrogate

reward_N = torch.tensor([1.0, 0.0])
group_N = torch.tensor([7, 7])  # any ids: attempts at the same task share one
entropy_NT = torch.tensor(  # nats, over the whole vocabulary; what stands at observations (9.9) is not read
    [
        [9.9, 0.1, 0.3, 9.9, 0.6, 9.9, 0.7, 1.3],
        [9.9, 0.4, 0.4, 9.9, 0.3, 0.5, 9.9, 9.9],
    ]
)
span_S3 = torch.tensor([[0, 1, 3], [0, 4, 5], [0, 6, 8], [1, 1, 3], [1, 4, 6]])  # row, first token, end; in order

# %% Which tokens are a step's, and which step follows it

row_S, first_S, end_S = span_S3.T
place_T = torch.arange(entropy_NT.shape[1])
mask_ST = (first_S[:, None] <= place_T) & (place_T < end_S[:, None])
is_last_S = row_S != torch.cat([row_S[1:], torch.tensor([-1])])
next_S = torch.where(is_last_S, -1, torch.arange(1, len(row_S) + 1))

# %% GRPO's advantage of a trajectory, and what EMPG makes of it for each of its steps

advantage_S = group_relative(reward_N, group_N)[row_S]
entropy_S = step_entropy(entropy_NT[row_S], mask_ST)  # Eq. 3
entropy01_S = normalise_entropy(entropy_S)  # Eq. 8: min-max over the batch
g_S = gradient_scale(entropy01_S, k=1.0)  # Eq. 6
f_S = future_clarity(entropy01_S, next_S, k_future=1.0)  # Eq. 7
credit_S = modulate(advantage_S, entropy_S, next_S, k=1.0, k_future=1.0, zeta=0.05)  # Eq. 4 and 9, all of it at once

print("step      A      H   g(H)   f(H')  credit")
for step, numbers in enumerate(zip(advantage_S, entropy_S, g_S, f_S, credit_S, strict=True)):
    print(f"{step:4d}" + "".join(f"{float(number):7.3f}" for number in numbers))

# %% For a trainer that takes an advantage for every token: credit where a step is, zero at observations

advantage_NT = torch.zeros_like(entropy_NT).index_add_(0, row_S, credit_S[:, None] * mask_ST)
print(f"\nadvantages of the tokens:\n{advantage_NT.numpy().round(3)}")

# %% Or one step of PPO's clipped loss here; the policy is a table of logits for the next token

token_NT = torch.arange(entropy_NT.numel()).view_as(entropy_NT)
policy = torch.nn.Embedding(token_NT.numel(), token_NT.numel())
optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)


def logprobs_of_tokens() -> torch.Tensor:
    """[N, T]; of the first token nothing is known."""
    logprob_NTV = policy(token_NT[:, :-1]).log_softmax(dim=-1)
    logprob_NT = logprob_NTV.gather(-1, token_NT[:, 1:, None]).squeeze(-1)
    return torch.nn.functional.pad(logprob_NT, (1, 0))


old_logprob_NT = logprobs_of_tokens().detach()
loss = clipped_surrogate(
    logprobs_of_tokens()[row_S],
    old_logprob_NT[row_S],
    credit_S,
    mask_ST,
    clip_low=0.2,
    clip_high=0.2,
    num_tokens=int(mask_ST.sum()),  # of all micro-batches, so that the gradient does not depend on the split
).loss
optimizer.zero_grad()
loss.backward()
optimizer.step()

change_NT = logprobs_of_tokens().detach() - old_logprob_NT
change_S = torch.where(mask_ST, change_NT[row_S], 0.0).sum(dim=1) / mask_ST.sum(dim=1)
print(f"\nlog-probs moved by {change_S.numpy().round(3)}: by the sign of the credit")
