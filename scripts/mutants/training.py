"""Faults in the loop: what is played, what trains, what is kept."""

from __future__ import annotations

from scripts.mutants.mutant import Mutant

_FOLDER = "src/empg_cli/training"
_SAMPLING = ("property/test_dynamic_sampling_properties.py", "unit/test_sampling.py")
_CHECKPOINT = ("unit/test_checkpoint.py",)
_LOOP = ("unit/test_loop.py",)
_WARM_START = ("unit/test_warm_start.py",)

TRAINING = (
    Mutant(
        "tasks-not-shuffled-anew",
        f"{_FOLDER}/tasks.py",
        "SeedSequence([_STREAM, seed, epoch])",
        "SeedSequence([_STREAM, seed])",
        "every round through the split has one order",
        _SAMPLING,
    ),
    Mutant(
        "surplus-groups-kept",
        f"{_FOLDER}/sampling.py",
        "groups[: wanted - len(kept_groups)]",
        "groups",
        "an update holds more groups than tasks_per_update",
        _SAMPLING,
    ),
    Mutant(
        "groups-share-a-number",
        f"{_FOLDER}/sampling.py",
        "first_group=batches * wanted",
        "first_group=0",
        "tasks of two rollouts share a baseline",
        _SAMPLING,
    ),
    Mutant(
        "filter-sees-penalties",
        f"{_FOLDER}/sampling.py",
        "trajectory.task_reward for",
        "trajectory.reward for",
        "a group of failures is informative when one of them was malformed",
        _SAMPLING,
    ),
    Mutant(
        "resamples-draw-alike",
        f"{_FOLDER}/sampling.py",
        "cfg.seed, state.update, batches)",
        "cfg.seed, state.update)",
        "a further rollout repeats the random numbers of the first",
        _SAMPLING,
    ),
    Mutant(
        "updates-draw-alike",
        f"{_FOLDER}/sampling.py",
        "cfg.seed, state.update, batches)",
        "cfg.seed, batches)",
        "every update repeats the random numbers of the first",
        _SAMPLING,
    ),
    Mutant(
        "dropped-episodes-are-free",
        f"{_FOLDER}/sampling.py",
        "state.count(played)",
        "state.count([])",
        "the costs of dynamic sampling are not counted",
        _SAMPLING,
    ),
    Mutant(
        "tasks-played-again",
        f"{_FOLDER}/sampling.py",
        "state.next_task += wanted",
        "state.next_task += 0",
        "every rollout plays the same tasks",
        _SAMPLING,
    ),
    Mutant(
        "lonely-episodes-train",
        f"{_FOLDER}/masking.py",
        "scored[trajectory.group] >= 2",
        "scored[trajectory.group] >= 1",
        "an episode without anything to compare it with trains",
        ("golden/test_masking_golden.py", "property/test_masking_properties.py", "unit/test_masking.py"),
    ),
    Mutant(
        "masked-episodes-kept-by-the-loop",
        f"{_FOLDER}/loop.py",
        "trajectories = trainable(trajectories)",
        "trajectories = list(trajectories)",
        "episodes that nobody could judge train",
        ("unit/test_masking.py", *_LOOP),
    ),
    Mutant(
        "recompute-keeps-the-samplers-entropies",
        f"{_FOLDER}/loop.py",
        "batch.old_logprob_ST, batch.entropy_ST = score_batch(policy, batch, cfg)",
        "batch.old_logprob_ST, _ = score_batch(policy, batch, cfg)",
        "EMPG goes by entropies that the training model does not have",
        _LOOP,
    ),
    Mutant(
        "reference-that-learns",
        f"{_FOLDER}/loop.py",
        "reference = initial.frozen_copy() if",
        "reference = initial if",
        "the KL term compares the policy with itself",
        _LOOP,
    ),
    Mutant(
        "checkpointing-never-enabled",
        "src/empg_cli/model/loading.py",
        "if model.gradient_checkpointing:",
        "if not model.gradient_checkpointing:",
        "model.gradient_checkpointing=true costs the memory that it should save",
        ("unit/test_policy_loading.py", "unit/test_gradient_checkpointing.py"),
    ),
    Mutant(
        "flipped-bit-trusted",
        f"{_FOLDER}/checkpoint.py",
        'if _sha256(file) != expected["sha256"]:',
        'if _sha256(file) == "":',
        "a damaged checkpoint is loaded",
        _CHECKPOINT,
    ),
    Mutant(
        "one-checkpoint-too-many",
        f"{_FOLDER}/checkpoint.py",
        "all_checkpoints(run_dir)[:-keep]",
        "all_checkpoints(run_dir)[: -keep - 1]",
        "trainer.keep_checkpoints is one off",
        _CHECKPOINT,
    ),
    Mutant(
        "oldest-checkpoint-first",
        f"{_FOLDER}/checkpoint.py",
        "for path in reversed(all_checkpoints(run_dir)):",
        "for path in all_checkpoints(run_dir):",
        "a run is resumed from its oldest checkpoint",
        _CHECKPOINT,
    ),
    Mutant(
        "optimiser-begins-anew",
        f"{_FOLDER}/checkpoint.py",
        "optimizer.load_state_dict(torch.load(",
        "dict(torch.load(",
        "a resumed run has lost Adam's moments",
        _CHECKPOINT,
    ),
    Mutant(
        "warm-start-key-without-the-seed",
        f"{_FOLDER}/warm_start.py",
        '"seed": cfg.seed,',
        '"seed": 0,',
        "two seeds begin with one policy",
        _WARM_START,
    ),
    Mutant(
        "demonstrated-mistakes-train",
        f"{_FOLDER}/demonstrations.py",
        "0.0 if is_mistake else 1.0",
        "1.0",
        "the policy imitates the mistakes from which the expert recovers",
        _WARM_START,
    ),
    Mutant(
        "failed-demonstrations-train",
        f"{_FOLDER}/demonstrations.py",
        "is_wanted = demonstration.success or settings.keep_failed",
        "is_wanted = True",
        "the policy imitates episodes that end in failure",
        _WARM_START,
    ),
)
