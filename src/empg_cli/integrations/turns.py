"""EMPG's credit for trainers that hold conversations as rows of tokens: a step is a turn, a run of sampled tokens.

Dimensions: `B` rows of this process, `N` rows of all processes, `T` tokens of a row, `S` turns of a row or, alone, all
turns of all rows. Rows have different numbers of turns; what follows a row's last turn is padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from empg_cli.algorithms.describe import Metrics, entropy_metrics, modulation_metrics
from empg_cli.algorithms.empg import apply_modulation, modulation, normalise_entropy
from empg_cli.config.algo import EmpgCredit


def turn_numbers(mask_BT: Tensor) -> Tensor:
    """The turn that each sampled token belongs to, from 0 in each row; -1 on all other tokens. Long [B, T].

    Args:
        mask_BT: bool, True on sampled tokens; one token of something else parts two turns.
    """
    before_BT = torch.zeros_like(mask_BT)
    before_BT[:, 1:] = mask_BT[:, :-1]
    number_BT = (mask_BT & ~before_BT).cumsum(dim=1) - 1
    return torch.where(mask_BT, number_BT, -1)


def turn_entropies(entropy_BT: Tensor, turn_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean token entropy of each turn (Eq. 3 of EMPG), float [B, S], 0 on padding; and how many turns a row has, [B].

    Args:
        entropy_BT: nats; ignored on tokens that are in no turn.
        turn_BT: from `turn_numbers`.
    """
    turns_B = turn_BT.amax(dim=1) + 1 if turn_BT.shape[1] else turn_BT.new_zeros(len(turn_BT))
    most = int(turns_B.max()) if len(turns_B) else 0
    in_turn_BT = turn_BT >= 0
    # One column more takes what is in no turn.
    column_BT = torch.where(in_turn_BT, turn_BT, most)
    sum_BS = entropy_BT.new_zeros(len(turn_BT), most + 1, dtype=torch.float32)
    sum_BS = sum_BS.scatter_add(1, column_BT, torch.where(in_turn_BT, entropy_BT.float(), 0.0))
    count_BS = torch.zeros_like(sum_BS).scatter_add(1, column_BT, in_turn_BT.float())
    return (sum_BS / count_BS.clamp_min(1))[:, :most], turns_B


def turn_credit(
    settings: EmpgCredit, advantage_N: Tensor, entropy_NS: Tensor, turns_N: Tensor, is_scored_N: Tensor
) -> tuple[Tensor, Metrics]:
    """A g(H_t) + zeta f(H_{t+1}), minus its mean, of every turn (arXiv 2509.09265, Eq. 4 to 9), over the whole batch.

    Float [N, S], 0 on padding and on all turns of rows that are not scored; and what to log.

    Args:
        advantage_N: of each conversation.
        entropy_NS, turns_N: from `turn_entropies`.
        is_scored_N: bool; False leaves the row out of every statistic, as an episode that was never sampled.

    Raises:
        ValueError: the entropy of a turn is NaN or infinite.
    """
    number_S = torch.arange(entropy_NS.shape[1], device=entropy_NS.device)
    counts_NS = (number_S < turns_N[:, None]) & is_scored_N[:, None]
    row_S = counts_NS.nonzero()[:, 0]
    advantage_S, entropy_S = advantage_N[row_S], entropy_NS[counts_NS]
    next_S = _following(row_S)
    parts = modulation(normalise_entropy(entropy_S), next_S, k=settings.k, k_future=settings.k_future)
    uncentred_S = apply_modulation(advantage_S, parts, zeta=settings.zeta, center=False)
    credit_S = uncentred_S - uncentred_S.mean() if settings.center else uncentred_S
    metrics = entropy_metrics(entropy_S) | modulation_metrics(advantage_S, parts, uncentred_S, credit_S, next_S)
    credit_NS = torch.zeros_like(entropy_NS)
    credit_NS[counts_NS] = credit_S.to(credit_NS.dtype)
    return credit_NS, metrics


def on_tokens(credit_BS: Tensor, turn_BT: Tensor) -> Tensor:
    """Each token has the credit of its turn; 0 on tokens that are in no turn. Float [B, T]."""
    if credit_BS.shape[1] == 0:
        return credit_BS.new_zeros(turn_BT.shape)
    return torch.where(turn_BT >= 0, credit_BS.gather(1, turn_BT.clamp_min(0)), 0.0)


def _following(row_S: Tensor) -> Tensor:
    """For turns in the order of their rows: the next turn of the same row, -1 if none."""
    following_S = torch.arange(1, len(row_S) + 1, device=row_S.device)
    is_last_S = torch.ones_like(row_S, dtype=torch.bool)
    is_last_S[:-1] = row_S[1:] != row_S[:-1]
    return torch.where(is_last_S, -1, following_S)
