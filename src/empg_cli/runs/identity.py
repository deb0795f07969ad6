"""What a run is: which settings, data and weights stay as they are when it goes on, and which may change.

Every key of `TrainConfig` has its rule here. A change that is allowed is written into run.json (`changes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from empg_cli.config.problems import Problem
from empg_cli.config.schema import TrainConfig


class Rule(Enum):
    STAYS = "what the run is: it decides what is played, learned or measured"
    CONTENT = "a place, which may be another one as long as its content has the same digest"
    MAY_CHANGE = "how the run is carried out, watched or kept; results are equal, up to rounding at most"
    UPDATES = "how far the run goes: never below what is done"
    FOLDER = "where the run lies and how it was called"


R = Rule
RULES: Mapping[str, Rule] = {
    "seed": R.STAYS,
    "run_dir": R.FOLDER,
    "resume": R.FOLDER,
    "model": R.STAYS,
    "model.path": R.CONTENT,
    "model.gradient_checkpointing": R.MAY_CHANGE,
    "benchmark": R.STAYS,
    "benchmark.data_dir": R.CONTENT,
    "benchmark.cache_dir": R.MAY_CHANGE,
    "benchmark.retrieval.index_dir": R.CONTENT,
    "benchmark.retrieval.device": R.MAY_CHANGE,
    "benchmark.retrieval.timeout_s": R.MAY_CHANGE,
    "benchmark.retrieval.attempts": R.MAY_CHANGE,
    "benchmark.retrieval.concurrency": R.MAY_CHANGE,
    # A service that has moved. What it holds, nobody but its owner can tell; the change is written down.
    "benchmark.retrieval.urls": R.MAY_CHANGE,
    "benchmark.retrieval.url": R.MAY_CHANGE,
    "benchmark.retrieval.base_url": R.MAY_CHANGE,
    "benchmark.retrieval.reader_url": R.MAY_CHANGE,
    "benchmark.retrieval.embeddings_url": R.MAY_CHANGE,
    "benchmark.retrieval.api_key_env": R.MAY_CHANGE,
    "benchmark.retrieval.reader_key_env": R.MAY_CHANGE,
    "benchmark.retrieval.embeddings_key_env": R.MAY_CHANGE,
    "benchmark.retrieval.cache": R.MAY_CHANGE,
    "benchmark.retrieval.requests_per_second": R.MAY_CHANGE,
    "benchmark.retrieval.max_calls": R.MAY_CHANGE,
    "benchmark.retrieval.usd_per_call": R.MAY_CHANGE,
    "benchmark.judge.base_url": R.MAY_CHANGE,
    "benchmark.judge.api_key_env": R.MAY_CHANGE,
    "benchmark.judge.timeout_s": R.MAY_CHANGE,
    "benchmark.judge.attempts": R.MAY_CHANGE,
    "benchmark.judge.concurrency": R.MAY_CHANGE,
    "algo": R.STAYS,
    "rollout.engine": R.STAYS,
    "rollout.context": R.STAYS,
    "rollout.history": R.STAYS,
    "rollout.temperature": R.STAYS,
    "rollout.eval_temperature": R.STAYS,
    "rollout.eval_top_p": R.STAYS,
    "rollout.max_concurrent": R.MAY_CHANGE,
    "rollout.max_new_tokens": R.STAYS,
    "rollout.max_context_tokens": R.STAYS,
    "rollout.max_staleness": R.STAYS,
    "rollout.vllm": R.MAY_CHANGE,
    "trainer.updates": R.UPDATES,
    "trainer.tasks_per_update": R.STAYS,
    "trainer.lr": R.STAYS,
    "trainer.lr_warmup": R.STAYS,
    "trainer.lr_schedule": R.STAYS,
    "trainer.weight_decay": R.STAYS,
    "trainer.optimizer": R.STAYS,
    "trainer.max_grad_norm": R.STAYS,
    "trainer.epochs": R.STAYS,
    "trainer.minibatches": R.STAYS,
    "trainer.tokens_per_microbatch": R.MAY_CHANGE,
    "trainer.old_logprobs": R.STAYS,
    "trainer.eval_every": R.MAY_CHANGE,
    "trainer.eval_before": R.MAY_CHANGE,
    "trainer.checkpoint_every": R.MAY_CHANGE,
    "trainer.keep_checkpoints": R.MAY_CHANGE,
    "trainer.device": R.MAY_CHANGE,
    "trainer.threads": R.MAY_CHANGE,
    "trainer.oom": R.MAY_CHANGE,
    "trainer.watchdog": R.MAY_CHANGE,
    "trainer.warm_start": R.STAYS,
    "trainer.warm_start.file": R.CONTENT,
    "trainer.health": R.MAY_CHANGE,
    "logger": R.MAY_CHANGE,
    "dist": R.MAY_CHANGE,
}
"""Key -> its rule, which holds below it too where no longer key has one."""


def may_change(key: str) -> bool:
    """A run that goes on may have another value of it."""
    return rule_of(key) is Rule.MAY_CHANGE


CHANGES = "changes"
"""Key of run.json: settings that became others when the run went on."""


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of `changes` in run.json."""

    update: int
    """Updates that were done when it was made."""
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before} until update {self.update}, {self.after} from there on"


def rule_of(key: str) -> Rule:
    """Raises KeyError for a key that nobody has thought about."""
    place = key
    while place not in RULES:
        place, _, last = place.rpartition(".")
        if not last or not place:
            raise KeyError(key)
    return RULES[place]


def differences(
    saved: Mapping[str, Any], cfg: TrainConfig, *, done: int, made: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[Problem], list[Change]]:
    """Settings of a run that goes on: those that cannot be as asked for, and those that are others from now on.

    Args:
        saved: what the run was asked to do before, with the keys of today.
        done: updates that the checkpoint has behind it.
        made: `changes` of its run.json; those after `done` are of a branch that is left, and not in force there.
    """
    old, now = _flat(saved), _flat(cfg.model_dump())
    for change in reversed(made):
        if change["update"] > done:
            old[change["key"]] = change["before"]
    problems, changes = [], []
    updates = cfg.trainer.updates
    if updates < done:
        hint = f"the checkpoint has {done} updates behind it: ask for {done} or more, or go on from an older checkpoint"
        problems.append(Problem("trainer.updates", "is below what is done", str(updates), hint))
    for key in sorted(old.keys() | now.keys()):
        before, after = old.get(key), now.get(key)
        rule = rule_of(key) if before != after else Rule.FOLDER
        if rule is Rule.STAYS:
            hint = f"the run has {before}; start a new run to change it"
            problems.append(Problem(key, "cannot change when resuming", str(after), hint))
        elif rule is not Rule.FOLDER and not key.startswith("logger.") and not problems:
            changes.append(Change(done, key, before, after))
    return problems, changes


def with_changes(made: Sequence[Mapping[str, Any]], new: Sequence[Change], *, done: int) -> list[dict[str, Any]]:
    """`changes` of a run that goes on: those up to `done`, then the new ones. Of two at one place one is made, and none
    where the second takes the first back.

    Args:
        made: `changes` of the run so far.
    """
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for change in [*(one for one in made if one["update"] <= done), *map(asdict, new)]:
        place = change["update"], change["key"]
        found[place] = {**change, "before": found.get(place, change)["before"]}
    return [change for change in found.values() if change["before"] != change["after"]]


def other_data(trained: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What tells two fingerprints of data apart; None where nothing does that both have.

    Args:
        trained: `data` of run.json.
    """
    for key in ("name", "source", "digest"):
        before, after = trained.get(key), now.get(key)
        if before is not None and after is not None and before != after:
            return f"{key} {before}, now {after}"
    before, after = (_digest_of_index(data) for data in (trained, now))
    return f"index {before}, now {after}" if before and after and before != after else None


def bends_of(cfg: TrainConfig, changes: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Where the schedule of the learning rate became another one: updates done, and how many it was made for.

    A run that was made longer or shorter is then no run of one length. A constant rate has no such places.

    Args:
        changes: of run.json.
    """
    if cfg.trainer.lr_schedule == "constant":
        return []
    return [(int(one["update"]), int(one["before"])) for one in changes if one["key"] == "trainer.updates"]


def _digest_of_index(data: Mapping[str, Any]) -> Any:
    retrieval = data.get("retrieval")
    return retrieval.get("digest") if isinstance(retrieval, Mapping) else None


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values.

    Args:
        prefix: what stands before every key, dot included.
    """
    if not isinstance(node, Mapping) or not node:
        return {prefix.removesuffix("."): node}
    return {key: value for name, inner in node.items() for key, value in _flat(inner, f"{prefix}{name}.").items()}
