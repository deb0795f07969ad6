"""The model card of an exported policy: everything in it is read from the run folder, nothing is claimed beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from empg_cli.config.secrets import mask_secrets, without_secrets
from empg_cli.config.yaml_files import read_mapping
from empg_cli.integrations.papers import BENCHMARK_PAPERS, Paper, papers_of
from empg_cli.integrations.portable import portable, portable_word
from empg_cli.runs.checkpoint import updates_of
from empg_cli.runs.config_file import saved_run
from empg_cli.runs.evaluations import WholeEvaluation, read_whole_evaluations
from empg_cli.runs.facts import MODEL_FROM
from empg_cli.runs.run_file import read_run_file

PROGRAM = "empg"
"""As whoever reads the card has it."""
OWN_LICENCE = "apache-2.0"
"""Of weights that come from empg itself: its tiny agents, and what began at random."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(run: Path, checkpoint: Path, *, adapter: bool = False, name: str | None = None) -> str:
    """README.md in the form of the Hugging Face Hub.

    Args:
        run: the run folder.
        checkpoint: of it, the one that is exported.
        adapter: the folder holds an adapter alone.
        name: of the model; None = that of the run folder.
    """
    values, facts = mask_secrets(saved_run(run)), read_run_file(run)
    found = _Evaluations.of(run, updates_of(checkpoint))
    name = (name or run.resolve().name).rpartition("/")[2]
    papers = papers_of(values["algo"])
    front = yaml.safe_dump(_front(values, facts, found, name, adapter), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {name}",
        _opening(values, facts, found, papers),
        "## Results",
        found.table(facts),
        "## Use",
        _use(values, adapter),
        "## Training",
        _training(run, values, facts, papers),
        "## Limits",
        "\n".join(f"* {line}" for line in _limits(values, facts, found)),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


class _Evaluations:
    """Those of the run, first and that of the checkpoint."""

    def __init__(self, first: WholeEvaluation | None, own: WholeEvaluation | None, number: int, updates: int):
        self.first, self.own, self.number, self.updates = first, own, number, updates

    @classmethod
    def of(cls, run: Path, updates: int | None) -> _Evaluations:
        by_update = {content["update"]: content for content in read_whole_evaluations(run) if content["total"]["n"]}
        own = None if updates is None else by_update.get(updates)
        return cls(by_update.get(0), own, len(by_update), updates or 0)

    @property
    def is_the_best_of_many(self) -> bool:
        return self.own is not None and self.number > 2

    def table(self, facts: Mapping[str, Any]) -> str:
        if self.own is None:
            return f"This checkpoint, after {self.updates} updates, was not evaluated by its run."
        source = (facts.get("data") or {}).get("source", "unknown")
        own = self.own
        head = (
            f"Success on `{own['split']}` ({source} data), each task once, at temperature {own['temperature']:g}, with "
            "95 % Wilson intervals over the tasks:"
        )
        rows = ["| | success | n |", "|---|---|---:|"]
        if self.first is not None and self.updates:
            rows.append(_row("before training", self.first["total"]))
        rows.append(_row(f"after {self.updates} updates", own["total"], strong=True))
        rows += [_row(f"… {kind['kind']}", kind) for kind in own["kinds"] if len(own["kinds"]) > 1]
        return "\n".join([head, "", *rows])


def _row(name: str, found: Mapping[str, Any], *, strong: bool = False) -> str:
    rate = f"{found['success_rate']:.1%}"
    return f"| {name} | {f'**{rate}**' if strong else rate} [{found['lo']:.1%}, {found['hi']:.1%}] | {found['n']} |"


def _front(
    values: Mapping[str, Any], facts: Mapping[str, Any], found: _Evaluations, name: str, adapter: bool
) -> dict[str, Any]:
    """The card's metadata, as the Hub reads it."""
    base, benchmark = _base_id(values["model"], facts), values["benchmark"]["name"]
    front: dict[str, Any] = {"license": _licence(values["model"])}
    if front["license"] == "other":
        front["license_name"] = "that-of-the-base-model"
    if base is not None:
        front["base_model"] = base
    front |= {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["empg", "reinforcement-learning", "llm-agent", str(values["algo"]["name"]), benchmark],
    }
    if found.own is not None:
        source = (facts.get("data") or {}).get("source", "unknown")
        total = found.own["total"]
        front["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "reinforcement-learning", "name": "language-model agent"},
                        "dataset": {
                            "name": f"{benchmark} ({source} data)",
                            "type": f"{benchmark}-{source}",
                            "split": found.own["split"],
                        },
                        "metrics": [
                            {
                                "type": "success_rate",
                                "value": round(total["success_rate"], 4),
                                "name": f"success rate, n={total['n']}, 95 % [{total['lo']:.3f}, {total['hi']:.3f}]",
                                "verified": False,
                            }
                        ],
                    }
                ],
            }
        ]
    return front


def _base_id(model: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """Of the hub; None for what is not there."""
    path = model.get("path")
    if model.get("init") != "pretrained" or not isinstance(path, str):
        return None
    # Runs of before this was kept: what is a folder here.
    if facts.get(MODEL_FROM) == "folder" or (MODEL_FROM not in facts and Path(path).expanduser().exists()):
        return None
    return path if _HUB_ID.fullmatch(path) else None


def _base(model: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    match model.get("init"):
        case "scratch":
            return "random weights"
        case "packaged":
            return "the tiny agent that ships with empg"
    base = _base_id(model, facts)
    return (
        f"[{base}](https://huggingface.co/{base})" if base else f"a local folder, `{PurePath(str(model['path'])).name}`"
    )


def _licence(model: Mapping[str, Any]) -> str:
    """A local base says it in its own card; one of the hub is not asked."""
    if model.get("init") != "pretrained":
        return OWN_LICENCE
    card = Path(str(model["path"])).expanduser() / "README.md"
    if card.is_file():
        front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        try:
            said = yaml.safe_load(front[1]) if front else None
        except yaml.YAMLError:
            said = None
        if isinstance(said, dict) and isinstance(said.get("license"), str):
            return str(said["license"])
    return "other"


def _opening(values: Mapping[str, Any], facts: Mapping[str, Any], found: _Evaluations, papers: list[Paper]) -> str:
    benchmark, data = values["benchmark"]["name"], facts.get("data") or {}
    about = BENCHMARK_PAPERS.get(benchmark)
    played = f"[{about.name}]({about.link})" if about else f"`{benchmark}`"
    official = "official data" if data.get("source") == "official" else f"**{data.get('source', 'unknown')}** data"
    tasks = (data.get("tasks") or {}).get("train")
    by = " with ".join(f"[{paper.name}]({paper.link})" for paper in papers) or f"`{values['algo']['name']}`"
    return (
        f"A language-model agent for {played}, trained from {_base(values['model'], facts)} by {by}: {found.updates} "
        f"updates on {official}{f' ({tasks} training tasks)' if tasks else ''}, with "
        "`empg` (PyPI: empg-cli)."
    )


def _use(values: Mapping[str, Any], adapter: bool) -> str:
    model, benchmark = values["model"], values["benchmark"]["name"]
    if adapter:
        return "The folder holds an adapter: `PeftModel.from_pretrained(base, FOLDER)`, on the weights named above."
    words = ["model=local", "model.path=FOLDER", f"model.prompt={model['prompt']}", f"benchmark={benchmark}"]
    rollout = values["rollout"]
    words += [f"rollout={rollout['context']}", f"rollout.max_new_tokens={rollout['max_new_tokens']}"]
    form = (
        "It reads the compact form of this benchmark, whole words of a closed vocabulary, and nothing else."
        if model["prompt"] == "compact"
        else "It reads the benchmark's chat prompts (think and action tags) through its own chat template."
    )
    return f"{form}\n\n```bash\n{shlex.join([PROGRAM, 'eval', *words])}\n```"


def _training(run: Path, values: Mapping[str, Any], facts: Mapping[str, Any], papers: list[Paper]) -> str:
    trainer, algo, rollout = values["trainer"], values["algo"], values["rollout"]
    rows = {
        "algorithm": f"`{algo['name']}`: " + ", ".join(f"{p.name} ([arXiv {p.arxiv}]({p.link}))" for p in papers),
        "trajectories an update": f"{trainer['tasks_per_update']} tasks × {algo['group_size']}",
        "learning rate": f"{trainer['lr']:g}",
        "loss weighting, group statistics": f"{algo['loss']['weighting']}, {algo['advantage'].get('statistics', '–')}",
        "context": f"{rollout['context']}, up to {values['benchmark']['max_steps']} steps an episode",
        "seed": str(values["seed"]),
        "data digest": str((facts.get("data") or {}).get("digest", "unknown")),
        "weights before": str((facts.get("model") or {}).get("digest", "unknown")),
        "configuration": str(facts.get("config_hash", "unknown")),
        "commit of empg": str(facts.get("commit") or "not from a checkout"),
        "versions": ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items()),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])
    config = yaml.safe_dump(portable(values), sort_keys=False, allow_unicode=True).rstrip()
    return (
        f"```bash\n{_command(run)}\n```\n\n{table}\n\n<details><summary>The whole configuration</summary>\n\n"
        f"```yaml\n{config}\n```\n\n</details>"
    )


def _command(run: Path) -> str:
    """As it was typed, without where it wrote. A run that went on has the words of the last command alone, which are
    not those that made it."""
    file, composed = run / ".hydra" / "overrides.yaml", run / ".hydra" / "config.yaml"
    if not file.is_file() or not composed.is_file() or read_mapping(composed).get("resume") is not None:
        return f"{PROGRAM} train  # the run folder does not say with which words; all settings are below"
    words = [str(word) for word in yaml.safe_load(file.read_text(encoding="utf-8")) or []]
    kept = [word for word in words if word.partition("=")[0].lstrip("+") not in ("run_dir", "resume")]
    return shlex.join([PROGRAM, "train", *(portable_word(without_secrets(word)) for word in kept)])


def _limits(values: Mapping[str, Any], facts: Mapping[str, Any], found: _Evaluations) -> Iterator[str]:
    source = (facts.get("data") or {}).get("source")
    if source != "official":
        yield f"Trained and evaluated on {source} data, which is not the official benchmark: compare it with no table."
    yield "One run with one seed: the intervals are over tasks, and say nothing of what another seed would give."
    if found.is_the_best_of_many:
        yield (
            f"Its run has {found.number} evaluations on the same tasks. If this checkpoint was chosen by them, its own "
            "number is optimistic."
        )
    yield "It was trained to act in this benchmark's texts and was tested on nothing else, safety included."
    if _licence(values["model"]) == "other":
        yield "The licence is that of the base model, which was not looked up: see there before you share the weights."
