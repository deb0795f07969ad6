"""`empg eval`: find the policy that is asked for and play the split, once or several times."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from empg_cli.agents.agent import Agent, AgentMaker, agents_of, wording_maker
from empg_cli.agents.messages import MessageCodec
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.benchmarks import data_facts, make_benchmark
from empg_cli.benchmarks.base import Benchmark
from empg_cli.config.schema import EvalConfig
from empg_cli.errors import UserError
from empg_cli.evaluation.evaluate import evaluate, evaluate_expert, evaluation_tasks
from empg_cli.evaluation.head_to_head import PASSES
from empg_cli.evaluation.kept import SETTINGS, kept_pass, settings_digest
from empg_cli.evaluation.repeats import Pass, PlayedPass, passes, summarise_passes
from empg_cli.evaluation.tracking import evaluation_log
from empg_cli.files import check_writable, write_in_folder
from empg_cli.model.loading import check_context, load_policy, load_to_play, model_fingerprint, pick_device
from empg_cli.model.memory import hardware_of
from empg_cli.model.policy import Policy
from empg_cli.observe.dashboard import Dashboard
from empg_cli.observe.trackers import refuse_missing
from empg_cli.planning.auto import playing_within_memory, with_all_at_once
from empg_cli.rollout.endpoint import EndpointEngine
from empg_cli.rollout.engine import LearnersEngine
from empg_cli.rollout.engines import SERVERS, opened_engine
from empg_cli.rollout.parity import check_parity
from empg_cli.runs.checkpoint import MODEL, load_state
from empg_cli.runs.config_file import find_run_folder
from empg_cli.runs.evaluations import Evaluation
from empg_cli.runs.facts import DATA, PROMPT_DATE, are_other_data, prompt_date
from empg_cli.runs.format import FORMAT
from empg_cli.runs.patience import Patience
from empg_cli.runs.run_file import read_run_file, update_run_file
from empg_cli.runs.trajectories import TextOf, save_trajectories, text_with_special_tokens
from empg_cli.runs.which_checkpoint import hold_checkpoint
from empg_cli.signals import held, obey
from empg_cli.types import Progress

log = logging.getLogger(__name__)


def run_eval(
    cfg: EvalConfig, run_dir: Path, *, show: Callable[[dict[str, Any]], None] = lambda result: None
) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, a checkpoint, a model that no run has trained, one behind a server, or the
    benchmark's expert.

    Writes `evaluation.json` (totals, task types, every task), `run.json` (data and weights) and the first
    `logger.trajectories` trajectories to `run_dir`. Several seeds, temperatures or samples leave each pass in
    `passes/`, in the form of a single evaluation, and their summary in `evaluation.json`; those that are there already
    are not played again, so a signal costs the pass at hand.

    Args:
        show: called with the result, also where the disk has no room for the files.

    Raises:
        ResultsNotKept: it had none; what was played is shown and not kept.
        AnotherEvaluation: the folder holds passes of one.
    """
    refuse_missing(cfg.logger.trackers)
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    check_writable(run_dir)
    files = Patience("results", str(run_dir))

    def write(path: Path, text: str) -> None:
        files.do(partial(write_in_folder, path, text))

    data = data_facts(benchmark)
    compare_with_training(cfg, data)
    which = passes(cfg)
    per_pass = len(evaluation_tasks(benchmark, cfg.benchmark))
    title = f"evaluating {cfg.run or cfg.policy} on {cfg.benchmark.name} ({data['source']} data)"
    played: list[PlayedPass] = []
    result: dict[str, Any] = {}
    with (
        Dashboard(cfg.logger.console, title, total_updates=1) as dashboard,
        _opened(cfg, benchmark, run_dir) as player,
        evaluation_log(cfg, run_dir, data, player.facts()) as logged,
    ):
        for number, one in enumerate(which):

            def progress(done: int, _: int, before: int = number * per_pass) -> None:
                dashboard.phase("evaluation", before + done, per_pass * len(which))

            path = _file(run_dir, one, len(which))
            about = _about(cfg, one, data, player)
            content = kept_pass(path, about) if len(which) > 1 else None
            if content is None:
                evaluation = player.play(one, progress)
                content = {**evaluation.as_dict(), **_about(cfg, one, data, player), "tasks": evaluation.tasks()}
                if number == 0:
                    kept = evaluation.trajectories[: cfg.logger.trajectories]
                    save_trajectories(run_dir, 0, "eval", kept, text_of=player.text_of, write=write)
                    files.do(partial(update_run_file, run_dir, format=FORMAT, data=data, model=player.facts()))
                write(path, _json(content))
                logged.trajectories(number, evaluation.trajectories)
            else:
                dashboard.message(f"played already: {one.name}")
            logged.content(number, content)
            played.append(PlayedPass(one, content["tasks"]))
            result = {key: value for key, value in content.items() if key != "tasks"}
    if len(which) > 1:
        result = {
            "split": cfg.benchmark.split,
            "temperatures": summarise_passes(played, _averages(data, played)),
            "policy": player.facts() or cfg.policy,
            "data": data,
            "rules": _rules(cfg),
        }
        write(run_dir / "evaluation.json", _json({**result, "passes": [one.name for one in which]}))
    show(result)
    if not files.settle():
        raise ResultsNotKept(f"{run_dir} has no room for the results: what is shown is all that is left of them")
    return result


class ResultsNotKept(UserError):  # noqa: N818 (a sentence for the user)
    """An evaluation was played to its end, and the disk did not take its files."""

    exit_code = 1


def compare_with_training(cfg: EvalConfig, data: dict[str, Any]) -> None:
    """Say it where the data is of the same kind as that the run was trained on, and yet other."""
    if cfg.run is None:
        return
    trained = read_run_file(find_run_folder(Path(cfg.run))).get(DATA) or {}
    is_same_kind = all(trained.get(key) == data[key] for key in ("name", "source"))
    if is_same_kind and are_other_data(trained, data):
        said = "the data is not what the run was trained on: digest %s then, %s now"
        log.warning(said, trained["digest"], data["digest"])


class Player(Protocol):
    @property
    def text_of(self) -> TextOf | None:
        """Token ids as text; None where there are no ids."""
        ...

    def play(self, which: Pass, progress: Progress) -> Evaluation: ...

    def facts(self) -> dict[str, Any] | None:
        """What has been played, for run.json; None = the benchmark's expert."""
        ...


@contextmanager
def _opened(cfg: EvalConfig, benchmark: Benchmark, run_dir: Path) -> Iterator[Player]:
    match cfg.policy:
        case "expert":
            yield _Expert(cfg, benchmark)
        case "endpoint":
            assert cfg.endpoint is not None, "checked by the schema"
            with EndpointEngine(cfg.endpoint) as engine:
                engine.check()
                yield _Endpoint(with_all_at_once(cfg), benchmark, engine)
        case "model":
            cfg = playing_within_memory(cfg, hardware_of(pick_device(cfg.trainer.device)))
            policy, source, version = _policy(cfg, benchmark)
            check_context(policy, cfg.rollout.max_context_tokens)
            check_parity(policy)
            today = _prompt_date(cfg, run_dir)
            facts = {"source": source, **model_fingerprint(policy), PROMPT_DATE: today.isoformat()}
            make_agent = agents_of(cfg, policy, benchmark, today=today)
            stop_ids, folder = make_agent().codec.stop_ids, run_dir / SERVERS
            with opened_engine(cfg.rollout, policy, stop_ids, model=cfg.model, folder=folder) as playing:
                with held():  # servers are not left in the middle of it
                    playing.publish(version)
                obey()
                yield _Model(cfg, benchmark, policy, playing, make_agent, facts)


def _prompt_date(cfg: EvalConfig, run_dir: Path) -> date:
    """That of the run, else that of the passes that are there, which may be of yesterday."""
    recorded = (read_run_file(run_dir).get("model") or {}).get(PROMPT_DATE) if cfg.run is None else None
    return date.fromisoformat(recorded) if recorded else prompt_date(cfg.run)


@dataclass
class _Expert:
    cfg: EvalConfig
    benchmark: Benchmark

    def play(self, which: Pass, progress: Progress) -> Evaluation:
        return evaluate_expert(
            self.benchmark,
            self.cfg.benchmark,
            seed=which.seed,
            max_failed_calls=self.cfg.trainer.health.max_failed_calls,
            progress=progress,
        )

    text_of = None

    def facts(self) -> None:
        return None


@dataclass
class _Model:
    cfg: EvalConfig
    benchmark: Benchmark
    policy: Policy
    engine: LearnersEngine
    make_agent: AgentMaker[int]
    _facts: dict[str, Any]

    def play(self, which: Pass, progress: Progress) -> Evaluation:
        cfg, rollout = self.cfg, self.cfg.rollout
        return evaluate(
            self.engine,
            self.benchmark,
            self.make_agent,
            cfg.benchmark,
            rollout.model_copy(update={"eval_temperature": which.temperature}),
            seed=which.seed,
            sample=which.sample,
            max_failed_calls=cfg.trainer.health.max_failed_calls,
            progress=progress,
        )

    @property
    def text_of(self) -> TextOf:
        return text_with_special_tokens(self.policy.tokenizer)

    def facts(self) -> dict[str, Any]:
        return self._facts


@dataclass
class _Endpoint:
    cfg: EvalConfig
    benchmark: Benchmark
    engine: EndpointEngine

    def play(self, which: Pass, progress: Progress) -> Evaluation:
        cfg, rollout = self.cfg, self.cfg.rollout
        make_wording = wording_maker(cfg.benchmark, "chat", self.benchmark)
        return evaluate(
            self.engine,
            self.benchmark,
            lambda: Agent(make_wording(), MessageCodec(), context=rollout.context, history=rollout.history),
            cfg.benchmark,
            rollout.model_copy(update={"eval_temperature": which.temperature}),
            seed=which.seed,
            sample=which.sample,
            max_failed_calls=cfg.trainer.health.max_failed_calls,
            progress=progress,
        )

    text_of = None

    def facts(self) -> dict[str, Any]:
        settings = self.engine.settings
        usage = {**self.engine.usage, "retries": self.engine.retries}
        return {"source": settings.base_url, "name": settings.model, "usage": usage}


def _policy(cfg: EvalConfig, benchmark: Benchmark) -> tuple[Policy, str, int]:
    """The policy, where it comes from, and how many updates it has seen."""
    device = pick_device(cfg.trainer.device)
    if cfg.run is None:
        # Nothing is trained, so the parameters are read in the compute type alone.
        model = cfg.model.model_copy(update={"param_dtype": cfg.model.dtype})
        words = closed_vocabulary(cfg.benchmark.name, benchmark)
        policy = load_policy(model, cfg.benchmark.name, words=words, seed=cfg.seed, device=device)
        source, version = model.path or model.init, 0
    else:
        with hold_checkpoint(Path(cfg.run), cfg.checkpoint) as held:
            checkpoint = held.checkpoint
            policy = load_to_play(checkpoint / MODEL, cfg.model, cfg.benchmark.name, device)
            source, version = str(checkpoint), load_state(checkpoint).update
    return policy, source, version


def _about(cfg: EvalConfig, which: Pass, data: dict[str, Any], player: Player) -> dict[str, Any]:
    """Of one pass: what was played by whom."""
    return {
        "split": cfg.benchmark.split,
        "temperature": which.temperature,
        "seed": which.seed,
        "sample": which.sample,
        "policy": player.facts() or cfg.policy,
        "data": data,
        "rules": _rules(cfg),
        SETTINGS: settings_digest(cfg),
    }


def _rules(cfg: EvalConfig) -> dict[str, Any]:
    """What changes a result beside data and weights."""
    rollout = cfg.rollout
    return {
        "max_steps": cfg.benchmark.max_steps,
        "context": rollout.context,
        "history": rollout.history,
        "max_new_tokens": rollout.max_new_tokens,
    }


def _averages(data: dict[str, Any], played: list[PlayedPass]) -> dict[str, list[str]]:
    """The rows of Deep Search in which each source counts once."""
    if data.get("name") != "deepsearch":
        return {}
    from empg_cli.benchmarks.deepsearch.report import AVERAGES
    from empg_cli.benchmarks.deepsearch.sources import group_of

    kinds = sorted({task["kind"] for task in played[0].tasks})
    rows = {name: [kind for kind in kinds if group in (group_of(kind), "all")] for group, name in AVERAGES.items()}
    return {name: members for name, members in rows.items() if members}


def _file(run_dir: Path, which: Pass, passes: int) -> Path:
    return run_dir / "evaluation.json" if passes == 1 else run_dir / PASSES / f"{which.name}.json"


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"
