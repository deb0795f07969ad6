"""Faults in the controls of EMPG."""

from __future__ import annotations

from scripts.mutants.mutant import Mutant

_CONTROLS = ("golden/test_controls_golden.py",)

CONTROLS = (
    Mutant(
        "permuted-is-not",
        "src/empg_cli/algorithms/controls.py",
        "order_S = permutation(torch.zeros_like(next_S), seed)",
        "order_S = torch.arange(len(next_S))",
        "control=permuted is EMPG",
        _CONTROLS,
    ),
    Mutant(
        "inverted-is-not",
        "src/empg_cli/algorithms/controls.py",
        "rising_S.flip(0)",
        "rising_S",
        "control=inverted is EMPG",
        _CONTROLS,
    ),
    Mutant(
        "permuted-within-all",
        "src/empg_cli/algorithms/controls.py",
        "order_S = permutation(trajectory_S, seed)",
        "order_S = permutation(torch.zeros_like(trajectory_S), seed)",
        "control=permuted_within takes weights from other trajectories",
        _CONTROLS,
    ),
    Mutant(
        "valid-only-by-trajectory",
        "src/empg_cli/algorithms/controls.py",
        "weight_S, clarity_S = means_of(weight_S, is_valid_S)",
        "weight_S, clarity_S = means_of(weight_S, trajectory_S)",
        "control=valid_only goes by trajectories",
        _CONTROLS,
    ),
    Mutant(
        "bias-without-the-rest",
        "src/empg_cli/algorithms/controls.py",
        "scaled_S + (advantage_S - mean)",
        "scaled_S + mean",
        "order=bias_only forgets who won",
        _CONTROLS,
    ),
    Mutant(
        "one-sign-out-of-balance",
        "src/empg_cli/algorithms/controls.py",
        "weight_S / weight_S[is_scaled_S].mean(), 1.0)",
        "weight_S, 1.0)",
        "scaled=positive makes successes as a whole weigh more or less",
        _CONTROLS,
    ),
    Mutant(
        "shift-of-the-wrong-sign",
        "src/empg_cli/algorithms/controls.py",
        "advantage_S + shift if shift",
        "advantage_S - shift if shift",
        "a shift takes out of the mean's part what it should add",
        _CONTROLS,
    ),
    Mutant(
        "shift-ignored",
        "src/empg_cli/algorithms/assemble.py",
        "                shift=shift,\n",
        "",
        "algo.credit.shift is not read",
        _CONTROLS,
    ),
    Mutant(
        "weights-that-were-not-used",
        "src/empg_cli/algorithms/assemble.py",
        "parts.weight_S, parts.clarity_S, found.credit_S)",
        "_modulation(settings, table).weight_S, parts.clarity_S, found.credit_S)",
        "with scaled=positive, g is shown where 1 was used",
        _CONTROLS,
    ),
    Mutant(
        "one-seed-for-all-batches",
        "src/empg_cli/algorithms/controls.py",
        "return zlib.crc32(torch.stack([tokens_S, trajectory_S]).cpu().numpy().tobytes())",
        "return zlib.crc32(b'')",
        "every batch has the same permutation",
        _CONTROLS,
    ),
    Mutant(
        "refused-actions-are-valid",
        "src/empg_cli/model/batch.py",
        "[step.well_formed and step.admissible for step in steps]",
        "[step.well_formed for step in steps]",
        "control=valid_only does not see what the environment refuses",
        ("unit/algorithms/test_batching.py",),
    ),
)
