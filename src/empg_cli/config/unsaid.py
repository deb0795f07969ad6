"""What a command line leaves unsaid, added before anything is composed: the preset that a path or a target means, and
the plus that Hydra would ask for before keys that code from outside reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from empg_cli.config.benchmarks import OURS
from empg_cli.config.compose import REFUSALS, hydra_session, parse, unescaped
from empg_cli.config.keys import Choice, presets
from empg_cli.config.local_model import with_local_model
from empg_cli.config.problems import INVALID, ConfigError, Problem
from empg_cli.config.targets import default_name

NODES = ("benchmark", "algo.credit")
"""Where keys stand that no file of ours knows."""


def with_unsaid(
    overrides: Sequence[str], config_name: str, config_dir: str | None = None
) -> tuple[list[str], list[str]]:
    """The overrides that are meant, and lines that say what was added."""
    words, about_model = with_local_model(overrides, config_name, config_dir)
    words, about_targets = with_outside_keys(words, config_name, config_dir)
    return words, [line for line in (about_model, *about_targets) if line]


def with_outside_keys(
    overrides: Sequence[str], config_name: str, config_dir: str | None = None, *, after: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """`benchmark.target=M:F benchmark.key=1` as `benchmark=custom ++benchmark.target=M:F ++benchmark.key=1`.

    Benchmark and algorithm are named after the code, where nobody names them; swept targets share a name. What a run,
    an experiment or a file of the user's says stays. Imports nothing: it looks at what the other words compose to.

    Args:
        after: words that stand before these, and stay as they are.

    Raises:
        ConfigError: a credit would take the place of another one.
    """
    if not _may_be_from_outside([*after, *overrides], config_name, config_dir):
        return list(overrides), []
    with hydra_session(config_name, config_dir) as session:
        words, problems = parse([*after, *overrides], session.loader)
        others = [str(word.input_line) for word in words if not _node_of(word) and not word.is_sweep_override()]
        try:
            composed = session.compose(others)
        except REFUSALS:
            return list(overrides), []  # another word is wrong; it is reported when all are composed
    if problems:
        return list(overrides), []  # the same for one that cannot be read
    said = {word.get_key_element().lstrip("+"): word for word in words}
    added: list[str] = []
    open_nodes: dict[str, DictConfig | None] = {}
    for node, complete in (("benchmark", _benchmark), ("algo.credit", _credit)):
        if (more := complete(composed, said)) is not None:
            added += more
            is_new = any(word.startswith("benchmark=") for word in more)
            open_nodes[node] = None if is_new else OmegaConf.select(composed, node)
    meant = [_with_plus(word, open_nodes) for word in words[len(after) :]]
    return [*added, *meant], [f"the target says what is meant: {' '.join(added)}"] if added else []


def _with_plus(word: Override, open_nodes: Mapping[str, DictConfig | None]) -> str:
    """`++` before a key of an open node that is not there yet."""
    text, node = str(word.input_line), _node_of(word)
    if node is None or node not in open_nodes or text.startswith(("+", "~")):
        return text
    there = open_nodes[node]
    first = str(word.key_or_group).removeprefix(f"{node}.").split(".")[0]
    return text if there is not None and first in there else f"++{text}"


def _may_be_from_outside(overrides: Sequence[str], config_name: str, config_dir: str | None) -> bool:
    """Without a look at what is composed, which takes 0.1 s."""
    words = [word.lstrip("+") for word in overrides]
    if not any(word.startswith(f"{node}.") for word in words for node in NODES):
        return False
    if config_dir is not None or config_name not in ("train", "eval", "ablate"):
        return True
    named = [word.partition("=")[2].split(",") for word in words if word.startswith("benchmark=")]
    marks = ("benchmark.target=", "algo.credit.target=", "algo.credit.kind=custom")
    return any(word.startswith(marks) for word in words) or any(set(names) - set(OURS) for names in named)


def _benchmark(composed: DictConfig, said: dict[str, Override]) -> list[str] | None:
    """What to add for `benchmark.target=...`; None if no target reads the keys."""
    targets = _targets("benchmark", said)
    node = composed.get("benchmark")
    is_custom = node is not None and "target" in node
    if not is_custom and (not targets or "benchmark" in said):
        return None
    added = [] if is_custom else ["benchmark=custom"]
    is_unnamed = not is_custom or (node.target is None and node.name == "custom")
    if targets and is_unnamed and "benchmark.name" not in said:
        names = {default_name(target) for target in targets}
        added += [f"benchmark.name={name}" for name in names if name is not None and len(names) == 1]
    return added


def _credit(composed: DictConfig, said: dict[str, Override]) -> list[str] | None:
    targets = _targets("algo.credit", said)
    kind = OmegaConf.select(composed, "algo.credit.kind")
    if kind == "custom" or ("algo.credit.kind" in said and said["algo.credit.kind"].value() == "custom"):
        return []
    if not targets or kind is None or "algo.credit.kind" in said:
        return None
    if kind != "none":
        ways = ", ".join(presets(Choice("algo.credit.kind", "none")))
        what = f"would take the place of another credit: algo={composed.algo.name} has algo.credit.kind={kind}"
        raise ConfigError(INVALID, [Problem("algo.credit.target", what, ",".join(targets), f"choose one of: {ways}")])
    added = ["algo.credit.kind=custom"]
    if "algo.name" not in said:
        names = {target.rpartition(":")[2].rpartition(".")[2] for target in targets}
        added.append(f"algo.name={composed.algo.name}_{names.pop() if len(names) == 1 else 'custom'}")
    return added


def _targets(node: str, said: dict[str, Override]) -> list[str]:
    """The target; all of them, where they are swept."""
    word = said.get(f"{node}.target")
    if word is None or (word.is_sweep_override() and not word.is_discrete_sweep()):
        return []
    values = map(unescaped, word.sweep_string_iterator()) if word.is_sweep_override() else [word.value()]
    return [str(value) for value in values if value is not None]


def _node_of(word: Override) -> str | None:
    return next((node for node in NODES if str(word.key_or_group).startswith(f"{node}.")), None)
