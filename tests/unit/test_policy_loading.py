"""A policy that is written to a folder and read back."""

from __future__ import annotations

from pathlib import Path

import torch

from empg_cli.model.loading import load_folder, load_own
from tests.support.tiny import tiny_config, tiny_policy


def test_a_reloaded_policy_rounds_as_the_one_in_memory(tmp_path: Path) -> None:
    """Also for a single row, where the kernel goes by where in memory the weights begin: resuming depends on it."""
    policy = tiny_policy(tiny_config())
    policy.save(tmp_path)
    loaded = load_folder(str(tmp_path), dtype="float32", device=torch.device("cpu"))
    assert all(parameter.data_ptr() % 64 == 0 for parameter in loaded.model.parameters())
    assert loaded.head.weight_VD is loaded.model.get_input_embeddings().weight  # still tied
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        for length in (1, 2, 36):
            ours, theirs = (network.model(ids[:, :length]).logits for network in (policy, loaded))
            assert torch.equal(ours, theirs)


def test_a_policy_is_saved_alike_wherever_it_was_loaded_from(tmp_path: Path) -> None:
    """A run whose warm start comes from the cache has the checkpoints of the run that made it."""
    cfg = tiny_config()
    made = tiny_policy(cfg)
    made.save(tmp_path / "made")
    load_own(tmp_path / "made", cfg.model, torch.device("cpu")).save(tmp_path / "again")
    for path in (tmp_path / "made").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
