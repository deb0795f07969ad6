"""RMSNorm through torch's function against the one that transformers writes out."""

from __future__ import annotations

import copy

import pytest
import torch

from empg_cli.model.norm import FusedNorm, fuse_norms
from tests.parity.test_architectures import VOCABULARY, networks_of
from tests.support.tiny import tiny_config, tiny_policy


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_logits_are_the_same_and_gradients_but_for_rounding(name: str) -> None:
    plain, _ = networks_of(name)
    fused = copy.deepcopy(plain)
    fuse_norms(fused)
    norms = [part for part in fused.modules() if isinstance(part, FusedNorm)]
    assert len(norms) == 5 + 4 * (name == "qwen3")  # two a layer, the last one, and Qwen3's of queries and keys
    assert list(fused.state_dict()) == list(plain.state_dict())
    ids = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    logits = [network(input_ids=ids).logits for network in (plain, fused)]
    assert torch.equal(*logits)
    for logit_BTV in logits:
        logit_BTV.log_softmax(-1)[..., 3].sum().backward()
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_half_precision_rounds_once_where_transformers_rounds_twice() -> None:
    plain, _ = networks_of("llama")
    norm = plain.model.norm.to(torch.bfloat16)
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    wanted = hidden.double() / (hidden.double().square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    wanted = wanted * norm.weight.double()
    theirs = norm(hidden).double()
    fuse_norms(norm)
    ours = norm(hidden).double()
    assert (ours - wanted).abs().mean() <= (theirs - wanted).abs().mean()
    torch.testing.assert_close(ours, wanted, atol=0, rtol=2**-7)


def test_a_loaded_policy_has_it_once_and_no_other_model_gets_it() -> None:
    policy = tiny_policy(tiny_config())
    norms = [part for part in policy.model.modules() if type(part).__name__ == "Qwen2RMSNorm"]
    assert norms and all(isinstance(norm, FusedNorm) for norm in norms)
    before = [type(part) for part in policy.model.modules()]
    fuse_norms(policy.model)
    assert [type(part) for part in policy.model.modules()] == before
    gemma, _ = networks_of("gemma2")  # its weight is one less
    fuse_norms(gemma)
    assert not any(isinstance(part, FusedNorm) for part in gemma.modules())
