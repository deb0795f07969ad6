"""What a mistake on the command line is answered with: every problem at once, with key, value and way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from empg_cli.config import load
from empg_cli.config.command_line import Sweep, _naming, check_command_line
from empg_cli.config.compose import hydra_session, parse
from empg_cli.config.problems import ConfigError, Problem, did_you_mean
from empg_cli.config.schema import TrainConfig


def problems(*overrides: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(list(overrides))
    return list(caught.value.problems)


def problem(*overrides: str) -> Problem:
    found = problems(*overrides)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("override", "key", "text"),
    [
        ("benchmark=alfwrld", "benchmark", "did you mean alfworld?"),
        ("algo=empgg", "algo", "did you mean empg?"),
        ("algo.grp_size=4", "algo.grp_size", "did you mean algo.group_size?"),
        ("+algo.grp_size=4", "algo.grp_size", "did you mean algo.group_size?"),
        ("+trainer.warm_start.stepz=4", "trainer.warm_start.stepz", "did you mean trainer.warm_start.steps?"),
        ("max_steps=4", "max_steps", "did you mean benchmark.max_steps?"),
        ("benchmrk=alfworld", "benchmrk", "did you mean benchmark?"),
        (
            "algo=grpo algo.credit.zetta=1",
            "algo.credit.zetta",
            "did you mean algo.credit.zeta? It is read with algo.credit.kind=empg: choose algo=",
        ),
        ("algo.group_size=1", "algo.group_size", "must be greater than or equal to 2 (got 1)"),
        ("trainer.lr=-1", "trainer.lr", "must be greater than 0 (got -1)"),
        ("trainer.lr=fast", "trainer.lr", "must be a valid number (got fast)"),
        ("trainer.lr=inf", "trainer.lr", "must be a finite number (got inf)"),
        ("trainer.updates=2.5", "trainer.updates", "must be a valid integer (got 2.5)"),
        ("trainer.threads=99999999999", "trainer.threads", "must be less than or equal to 1024 (got 99999999999)"),
        ("trainer.watchdog=1e11", "trainer.watchdog", "must be less than or equal to 10000000"),
        ("seed=99999999999999999999", "seed", "must be less than 1000000000000000000"),
        ("trainer.updates=true", "trainer.updates", "must be a valid integer (got true)"),
        ("model.dtype=bfloat61", "model.dtype", "did you mean bfloat16?"),
        ("trainer.device=gpu", "trainer.device", "must be auto, cpu, cuda or cuda:N (got gpu)"),
        ("algo.credit.kind=emgp", "algo.credit.kind", "did you mean empg?"),
        ("rollout.history=2", "rollout.history", "is not read when context=transcript"),
        (
            "experiment=webshop rollout=window rollout.history=0",
            "rollout.history",
            "must be at least 1 when model.prompt=compact and benchmark=webshop",
        ),
        (
            "rollout.max_new_tokens=5000 rollout.max_context_tokens=2048",
            "rollout.max_new_tokens",
            "must be below max_context_tokens (2048) (got 5000)",
        ),
        (
            "trainer.minibatches=1000 trainer.tasks_per_update=16 algo.group_size=8",
            "trainer.minibatches",
            "must not exceed the trajectories of an update (128 = 16 tasks x group of 8)",
        ),
        ("dist=slurm", "dist", "choose one of: cluster, node, none"),
        ("dist=node dist.processes=0", "dist.processes", "must be greater than 0 (got 0)"),
        ("dist=node dist.processes=4 dist.shard=3", "dist.shard", "must divide dist.processes (4) (got 3)"),
        ("dist=node dist.restarts=-1", "dist.restarts", "must be greater than or equal to 0 (got -1)"),
        ("dist=cluster dist.processes=2", "dist.processes", "is read with dist.launch=node: choose dist=node"),
        ("dist=cluster trainer.oom=halve", "trainer.oom", "must be stop with several processes (dist.launch=cluster)"),
        ("dist.processes=2", "dist.processes", "is read with dist.launch=node: choose dist=node, or leave it out"),
        ("dist=node trainer.oom=halve", "trainer.oom", "must be stop with several processes (dist.launch=node)"),
        (
            "dist=node benchmark=deepsearch retrieval@benchmark.retrieval=serper benchmark.retrieval.max_calls=9",
            "benchmark.retrieval.max_calls",
            "must be null with several processes (dist.launch=node): each would spend that many",
        ),
        ("dist=node trainer.device=cuda:1", "trainer.device", "must be auto, cpu or cuda with several processes"),
        ("dist=node trainer.optimizer=adamw8bit", "trainer.optimizer", "must be adamw with several processes"),
        (
            "dist=node model=smollm2-135m model.path=owner/name model.lora.rank=8",
            "model.lora.rank",
            "must be 0 with several processes (dist.launch=node): adapters are not sharded (got 8)",
        ),
        ("model.init=pretrained", "model.path", "must name a model folder or hub id"),
        ("model.prompt=chat", "model.prompt", "must be compact when init=packaged"),
        ("benchmark.task_types=[]", "benchmark.task_types", "at least 1 item"),
        ("~algo.credit.kind algo=grpo", "algo.credit.kind", "must be given"),
        ("benchmark.task_types=[cook]", "benchmark.task_types[0]", "must be pick_and_place_simple"),
        ("benchmark.data_dir=/no/such/data", "benchmark.data_dir", "does not exist (got /no/such/data)"),
        ("model.init=pretrained model.path=/no/such/model", "model.path", "no such folder"),
        ("resume=/no/such/run", "resume", "no such folder"),
        ("+trainer.lr=1", "trainer.lr", "leave the plus out: trainer.lr=1"),
        ("~trainer.lrr", "trainer.lrr", "cannot be removed: it is not there; did you mean trainer.lr"),
        ("~trainer.lr", "trainer.lr", "must be given"),
        ("trainer.lr", "trainer.lr", "not a KEY=VALUE override"),
        ("hydra/launcher=ray", "hydra/launcher", "'ray' is not installed"),
        ("run_dir=${nowhere}/x", "run_dir", "nowhere"),
    ],
)
def test_one_mistake_is_one_problem_with_its_key_and_a_way_out(override: str, key: str, text: str) -> None:
    found = problem(*override.split())
    assert found.key == key
    assert text in str(found)


def test_a_wrong_option_lists_the_right_ones() -> None:
    assert "choose one of: transcript, window" in str(problem("rollout=foo"))


def test_all_mistakes_are_listed_at_once_whoever_finds_them() -> None:
    # Hydra itself would stop at the first of the first three; pydantic and the disk check find the rest.
    found = problems(
        "benchmark=alfwrld",
        "algo.grp_size=3",
        "~seeed",
        "+foo=1",
        "trainer.lr=-1",
        "seed=x",
        "benchmark.data_dir=/nope",
    )
    bad = {"benchmark", "algo.grp_size", "seeed", "foo", "trainer.lr", "seed", "benchmark.data_dir"}
    assert {entry.key for entry in found} == bad
    assert len(found) == len(bad)


def test_keys_below_a_misspelt_option_are_not_judged_by_the_default_option() -> None:
    assert [entry.key for entry in problems("algo=grppo", "algo.credit.kappa=1")] == ["algo"]


@pytest.mark.parametrize("sign", ["", "+"])
def test_a_knob_that_the_algorithm_does_not_read_is_refused_with_those_that_do(sign: str) -> None:
    found = problem("algo=grpo", f"{sign}algo.credit.zeta=0.1")
    assert found.key == "algo.credit.zeta"
    assert found.what == "is not read: algo=grpo has algo.credit.kind=none"
    assert found.got == "0.1"
    assert found.hint is not None
    assert "algo.credit.kind=empg" in found.hint
    assert "algo=empg" in found.hint


def test_a_choice_made_on_the_command_line_asks_for_its_keys() -> None:
    found = {entry.key: str(entry) for entry in problems("algo=grpo", "algo.credit.kind=empg", "algo.credit.k=1")}
    assert "add it with a plus: +algo.credit.k=1" in found["algo.credit.k"]
    assert "add +algo.credit.zeta=VALUE" in found["algo.credit.zeta"]


def test_settings_left_over_from_another_choice_say_how_to_drop_them() -> None:
    found = problems("algo=empg", "algo.credit.kind=none")
    assert {"algo.credit.k", "algo.credit.zeta"} <= {entry.key for entry in found}
    assert all(f"drop it: ~{entry.key}" in str(entry) for entry in found)


def test_several_values_without_the_sweep_flag() -> None:
    with pytest.raises(ConfigError, match=r"seed: has several values.*add -m"):
        check_command_line("train", ["seed=1,2"], TrainConfig)


def test_a_sweep_names_the_job_that_is_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        check_command_line("train", ["seed=1,2", "algo.group_size=8,1", "trainer.lr=1e-3"], TrainConfig, multirun=True)
    assert [entry.key for entry in caught.value.problems] == ["algo.group_size"]
    assert caught.value.where == "in the job: seed=1 algo.group_size=1"


def test_a_mistake_in_all_jobs_is_told_once_and_blames_none() -> None:
    with pytest.raises(ConfigError) as caught:
        check_command_line("train", ["seed=1,2,3", "trainer.lr=-1"], TrainConfig, multirun=True)
    assert len(caught.value.problems) == 1
    assert caught.value.where is None


def test_a_big_sweep_still_checks_every_value_of_every_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3 x 2 jobs with room for 2: the combinations (4, 0), (4, 1), then the values 8 and 1 of the first axis
    monkeypatch.setattr("empg_cli.config.command_line.MAX_COMBINATIONS", 2)
    with pytest.raises(ConfigError, match=r"algo\.group_size: must be greater than or equal to 2 \(got 1\)") as caught:
        check_command_line("train", ["algo.group_size=4,8,1", "seed=0,1"], TrainConfig, multirun=True)
    assert caught.value.where == "in the job: algo.group_size=1 seed=0"


def test_ranges_globs_and_hydra_mode_count_as_sweeps() -> None:
    overrides = ["seed=range(0,2)", "algo=glob(*empg)", "hydra.mode=MULTIRUN", "run_dir=here/x"]
    assert check_command_line("train", overrides, TrainConfig) == Sweep(None, ("hydra.mode", "run_dir"), "here/x", True)


@pytest.mark.parametrize(
    ("words", "subdir", "unnamed"),
    [
        (["seed=1", "model.path=/a,/b"], "${hydra.job.num}", ("seed", "model.path")),
        (["seed=1,2", "++trainer.lr=1"], None, ("trainer.lr",)),
        (
            ["algo=grpo,dapo", "++trainer.lr=1,2", "~rollout", "+a=1"],
            "${hydra.job.num}-algo=${hydra.runtime.choices.algo},trainer.lr=${trainer.lr}",
            ("rollout", "a"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_job_is_named_by_what_varies_without_pluses(
    words: list[str], subdir: str | None, unnamed: tuple[str, ...]
) -> None:
    with hydra_session("train") as session:
        parsed, _ = parse(words, session.loader)
        assert _naming(parsed, session.loader) == (subdir, unnamed)


def test_samplers_of_a_sweep_are_left_to_the_sweeper() -> None:
    check_command_line("train", ["trainer.lr=interval(-1,1)"], TrainConfig, multirun=True)


def test_files_of_ones_own_are_found(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text("defaults: [empg]\nname: mine\ncredit: {zeta: 0.2}\n")
    check_command_line("train", ["algo=mine"], TrainConfig, config_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="algo: has no option 'mine'"):
        check_command_line("train", ["algo=mine"], TrainConfig)


@pytest.mark.parametrize(
    ("word", "answer"),
    [("lr", "did you mean a.lr or b.lr?"), ("a.lrr", "did you mean a.lr?"), ("zzz", None)],
)
def test_nearest_match(word: str, answer: str | None) -> None:
    assert did_you_mean(word, ["a.lr", "b.lr", "group_size"]) == answer


@pytest.mark.parametrize("words", [["policy=expert"], ["policy=endpoint", "endpoint=openai", "endpoint.model=x"]])
def test_what_is_said_to_an_expert_or_an_endpoint_may_be_without_history(words: list[str]) -> None:
    cfg = load([*words, "benchmark=webshop", "rollout=window", "rollout.history=0"], "eval")
    assert cfg.rollout.history == 0


@pytest.mark.parametrize("text", [r"cost \${x} per run", r"\${seed}", r"\${oc.env:HOME}"])
def test_a_text_that_a_saved_configuration_would_not_give_back_is_refused(text: str) -> None:
    """A run with it trained, and could then neither go on nor be evaluated."""
    found = problem(f"logger.wandb.notes='{text}'", "seed=1")
    assert (found.key, found.got) == ("logger.wandb.notes", text.replace("\\", ""))
    assert "holds ${" in str(found)
    assert load([r"logger.wandb.notes='$ {x} $x {x} seed ${seed}'", "seed=1"]).logger.wandb.notes == (
        "$ {x} $x {x} seed 1"
    )
    asked = load(["policy=endpoint", "endpoint=openai", r"endpoint.model='of \${x}'"], "eval")
    assert asked.endpoint is not None and asked.endpoint.model == "of ${x}"  # no run saves it
