"""The door for code from outside: its settings, its benchmark, its credit, its sinks, its entry points."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore

from empg_cli.agents.agent import wording_maker
from empg_cli.agents.plain import PlainChat, PlainCompact
from empg_cli.agents.vocabulary import closed_vocabulary
from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.algorithms.assemble import compute_credit
from empg_cli.algorithms.brought import CreditError
from empg_cli.algorithms.table import StepTable
from empg_cli.benchmarks import data_facts, make_benchmark
from empg_cli.benchmarks.base import Observation
from empg_cli.cli.commands import doctor
from empg_cli.cli.completion import complete_word
from empg_cli.config import load
from empg_cli.config.job import load_job
from empg_cli.config.outside import addresses, facts, repeated
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.config.targets import code_facts
from empg_cli.config.unsaid import with_outside_keys
from empg_cli.learner.warm_start import warm_start_key
from empg_cli.observe.identity import RunIdentity
from empg_cli.observe.sinks import open_sinks
from empg_cli.observe.summary import eval_command, resume_command
from empg_cli.runs.facts import config_hash
from tests.support import outside as theirs
from tests.support.tiny import tiny_policy

COIN = "benchmark.target=tests.support.outside:Coin"
SCRATCH = "model=tiny-scratch"
MODULATE = "algo.credit.target=empg_cli.algorithms.empg:modulate"
BAD = "tests.support.outside:bad_credit"
TABLE = StepTable(
    entropy_S=torch.tensor([0.1, 0.2, 0.3, 0.4]),
    tokens_S=torch.tensor([3, 3, 3, 3]),
    trajectory_S=torch.tensor([0, 0, 1, 2]),
    next_S=torch.tensor([1, -1, -1, -1]),
    reward_S=torch.tensor([0.0, 1.0, 0.0, 0.0]),
    group_N=torch.tensor([0, 0, 0]),
    reward_N=torch.tensor([1.0, 0.0, 0.0]),
    anchor_S=(),
    task_reward_S=torch.tensor([0.0, 1.0, 0.0, 0.0]),
    penalty_S=torch.zeros(4),
    first_entropy_S=torch.tensor([0.1, 0.2, 0.3, 0.4]),
    is_valid_S=torch.ones(4, dtype=torch.bool),
)


# --- benchmarks -----------------------------------------------------------------------------------


def test_a_benchmark_of_ours_needs_no_arguments() -> None:
    given = make_benchmark(**load([]).benchmark.model_dump())
    assert make_benchmark("alfworld").fingerprint() == given.fingerprint()
    assert make_benchmark("webshop", num_products=20).fingerprint()["source"] == "generated"


def test_a_key_of_ours_that_is_given_counts_and_the_others_are_those_of_conf() -> None:
    benchmark = make_benchmark("alfworld", train_games=7, max_steps=2)
    assert len(benchmark.tasks("train")) == 7
    env = benchmark.make_env(benchmark.tasks("train")[0])
    env.reset()
    assert [env.step("look").done for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        ({"max_stepz": 5}, r"benchmark\.max_stepz: unknown key \(got 5\); did you mean benchmark\.max_steps\?"),
        ({"max_steps": 0}, r"benchmark\.max_steps: must be greater than or equal to 1 \(got 0\)"),
        ({"data_dir": "/no/such"}, r"benchmark\.data_dir: does not exist"),
        ({"num_products": 20}, r"benchmark\.num_products: is not read"),
    ],
)
def test_keys_are_checked_as_those_of_a_command(keys: dict[str, Any], answer: str) -> None:
    with pytest.raises(ConfigError, match=answer):
        make_benchmark("alfworld", **keys)


def test_defaults_are_found_inside_a_hydra_job_and_leave_it_as_it_was() -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from empg_cli.config.location import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        make_benchmark("alfworld", train_games=1)
        assert GlobalHydra.instance().hydra is outer
    make_benchmark("alfworld", train_games=1)
    assert not GlobalHydra.instance().is_initialized()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known: alfworld, webshop, deepsearch; or give target="):
        make_benchmark("nosuch")
    with pytest.raises(ValueError, match=r"unknown benchmark 'alfwrld'; did you mean alfworld\? known: alfworld"):
        make_benchmark("alfwrld")
    with pytest.raises(ValueError, match=r"needs a name .* or target=package.module:factory"):
        make_benchmark()


def test_a_benchmark_from_outside_gets_its_settings() -> None:
    made: Any = make_benchmark("coin", target="tests.support.outside:Coin", side="tails", max_steps=3)
    assert isinstance(made, theirs.Coin)
    given = made.settings_given
    assert (given.name, given.side, given.max_steps, given.split) == ("coin", "tails", 3, "test")
    assert make_benchmark(target="tests.support.outside:Coin").name == load([COIN, SCRATCH]).benchmark.name
    with pytest.raises(ConfigError, match=r"benchmark\.sode: unknown key .*did you mean benchmark\.side\?"):
        make_benchmark(target="tests.support.outside:Coin", sode="tails")


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        ({"lacks": "name"}, "its name is 'another', not that of its settings, 'outside'"),
        ({"lacks": "train"}, "it has no split train, only test"),
        ({"split": "dev"}, "it has no split dev, only train, test"),
        ({"lacks": "tasks"}, "its split train has no tasks"),
        ({"lacks": "source"}, "its fingerprint lacks source"),
    ],
)
def test_a_benchmark_that_cannot_be_played_is_told_what_it_lacks(keys: dict[str, Any], answer: str) -> None:
    with pytest.raises(ConfigError, match=answer):
        make_benchmark(target="tests.support.outside:Coin", **keys)
    with pytest.raises(ConfigError, match="object, lacks tasks, make_env, expert, fingerprint, name, splits"):
        make_benchmark(target="tests.support.outside:nothing")


def test_settings_with_their_defaults_are_in_the_configuration_and_its_hash() -> None:
    cfg = load([COIN, SCRATCH])
    assert cfg.benchmark.model_dump()["side"] == "heads"
    assert cfg.benchmark.name == "outside"  # the module
    hashes = {config_hash(load([COIN, SCRATCH, *more])) for more in ([], ["benchmark.side=tails"], ["algo=grpo"])}
    hashes |= {config_hash(load([COIN, SCRATCH, "algo=grpo", MODULATE, f"algo.credit.k={k}"])) for k in (1, 2)}
    assert len(hashes) == 5
    sink = "logger.sinks=['tests.support.outside:Noted']"
    assert config_hash(load([COIN, SCRATCH, sink])) in hashes  # what is logged where makes no other run


def test_the_warm_start_of_other_code_is_another() -> None:
    cfg = load([COIN, SCRATCH, "trainer.warm_start.steps=1"])
    benchmark = make_benchmark(**cfg.benchmark.model_dump())
    policy = tiny_policy(load([SCRATCH]))
    assert facts({"benchmark": cfg.benchmark.model_dump()})["benchmark"]["digest"]
    before = warm_start_key(policy, benchmark, cfg)
    assert before == warm_start_key(policy, benchmark, cfg)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("empg_cli.config.outside.code_facts", lambda *_: {"digest": "of other code"})
        assert warm_start_key(policy, benchmark, cfg) != before


def test_the_recorded_data_says_whose_it_is() -> None:
    """Else a comparison would take tasks of two benchmarks for the same."""
    coin = make_benchmark(target="tests.support.outside:Coin")
    assert data_facts(coin) == {"name": "outside", "source": "generated", "tasks": {"train": 1}}
    ours = make_benchmark("alfworld", train_games=1)
    assert data_facts(ours) == ours.fingerprint()


def test_the_digest_is_of_the_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "digested"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("def make(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    digests = set()
    for content in ("a = 1\n", "a = 2\n"):
        (package / "helper.py").write_text(content)
        digests.add(code_facts("digested.deep:make", None, "key")["digest"])
    assert len(digests) == 2


# --- words of the command line --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["benchmark.max_steps=3"], ["benchmark.max_steps=3"]),
        (
            ["benchmark.target=a.b:C", "benchmark.max_steps=3"],
            ["benchmark=custom", "benchmark.name=b", "++benchmark.target=a.b:C", "++benchmark.max_steps=3"],
        ),
        (
            ["benchmark=custom", "benchmark.name=mine", "benchmark.target=a:C", "+benchmark.x=1", "~benchmark.y"],
            ["benchmark=custom", "benchmark.name=mine", "benchmark.target=a:C", "+benchmark.x=1", "~benchmark.y"],
        ),
        (["benchmark=custom", "benchmark.x=1,2"], ["benchmark=custom", "++benchmark.x=1,2"]),
        (
            ["benchmark.target=a.b:C,a.b:D"],
            ["benchmark=custom", "benchmark.name=b", "++benchmark.target=a.b:C,a.b:D"],
        ),
        (["benchmark.target=a:C,b:D"], ["benchmark=custom", "++benchmark.target=a:C,b:D"]),
        (
            ["algo=grpo", "algo.credit.target=a:f,a:g"],
            ["algo.credit.kind=custom", "algo.name=grpo_custom", "algo=grpo", "++algo.credit.target=a:f,a:g"],
        ),
        (["benchmark.target=webshop:C"], ["benchmark=custom", "++benchmark.target=webshop:C"]),
        (["benchmark=webshop", "benchmark.target=a:C"], ["benchmark=webshop", "benchmark.target=a:C"]),
        (
            ["algo=dapo", "algo.credit.target=a:f", "algo.credit.x=1"],
            [
                "algo.credit.kind=custom",
                "algo.name=dapo_f",
                "algo=dapo",
                "++algo.credit.target=a:f",
                "++algo.credit.x=1",
            ],
        ),
        (
            ["algo=grpo", "algo.credit.kind=custom", "algo.name=n", "algo.credit.k=1"],
            ["algo=grpo", "algo.credit.kind=custom", "algo.name=n", "++algo.credit.k=1"],
        ),
        (["algo=grpo", "algo.credit.kind=empg", "algo.credit.k=1"], None),
    ],
    ids=lambda words: " ".join(words) if words else None,
)
def test_what_a_target_says(words: list[str], meant: list[str] | None) -> None:
    assert with_outside_keys(words, "train")[0] == (meant or words)


def test_the_commands_at_the_end_of_a_run_name_its_code() -> None:
    sinks = ["a:S", {"target": "b:T", "text": 'a "b"', "n": None, "on": True, "l": [1, 2.5]}, {"target": "installed"}]
    values = load([COIN, SCRATCH, "algo=grpo", MODULATE]).model_dump() | {"logger": {"sinks": sinks}}
    words = repeated(addresses(values))
    assert words[:2] == [COIN, MODULATE]
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_overrides([words[2]])[0].value() == sinks  # it reads back
    assert eval_command(Path("r"), words) == f"empg eval run=r {COIN}"
    assert resume_command(Path("r"), words[:2]) == f"empg train --resume r {COIN} {MODULATE}"
    assert addresses({"benchmark": {"target": "installed"}}) == {}


# --- wordings -------------------------------------------------------------------------------------


def test_a_benchmark_without_wordings_is_spoken_for() -> None:
    cfg = load([COIN, SCRATCH])
    coin: Any = make_benchmark(**cfg.benchmark.model_dump())
    assert wording_maker(cfg.benchmark, "compact", coin) is PlainCompact
    assert wording_maker(cfg.benchmark, "chat", coin) is PlainChat
    assert closed_vocabulary("outside", coin) == ["a", "coin", "heads", "tails"]
    assert closed_vocabulary("outside") is None


def test_a_benchmark_brings_its_wordings_form_by_form() -> None:
    cfg = load(["benchmark.target=tests.support.outside:SpokenCoin", SCRATCH])
    coin = make_benchmark(**cfg.benchmark.model_dump())
    assert wording_maker(cfg.benchmark, "chat", coin) is theirs.Shouting
    assert wording_maker(cfg.benchmark, "compact", coin) is PlainCompact


def test_plain_words() -> None:
    wording = PlainCompact()
    assert wording.opening(Observation("row a b", ("x",))) == "row a b"
    assert wording.turn("x", Observation("row b b", ())) == "row b b"
    past = [Exchange("row a b", "x")]
    assert wording.window(past, 1, Observation("row b b", ())) == "row a b <act> x row b b"
    assert wording.window([], 1, Observation("row b b", ())) == "row a b row b b"  # what it began with is repeated
    assert wording.parse("x y") == Parsed("x y", well_formed=True)
    assert not wording.parse(" ").well_formed
    assert wording.phrase("x y") == "x y"


def test_plain_chat() -> None:
    wording = PlainChat()
    opening = wording.opening(Observation("A Row.", ("Flip 1", "wait")))
    assert opening.startswith("A Row.\n\nAdmissible actions now: ['Flip 1', 'wait']\n\n")
    assert "Admissible" not in wording.turn("", Observation("Now.", ()))
    window = wording.window([Exchange("Then.", "wait")], 2, Observation("Now.", ()))
    assert window.startswith(
        "It began with: A Row.\nSteps taken so far: 2. The most recent 1:\n[Observation 2: 'Then.'"
    )
    assert "Step 3. You now observe: Now." in window
    assert not wording.window([Exchange("A Row.", "wait")], 1, Observation("Now.", ())).startswith("It began")
    assert wording.parse(wording.phrase("Flip 1")) == Parsed("Flip 1", well_formed=True)  # its case is kept
    assert wording.parse("<action>Flip 1</action>") == Parsed("Flip 1", well_formed=False)
    assert wording.parse("<think>x</think> Flip 1") == Parsed("<think>x</think> Flip 1", well_formed=False)


# --- credit ---------------------------------------------------------------------------------------


def test_empg_through_the_door_is_empg() -> None:
    ours = load(["algo=empg", "algo.credit.k=2", "algo.credit.zeta=0.3"]).algo
    door = load(["algo=grpo", MODULATE, "algo.credit.k=2.0", "algo.credit.zeta=0.3"]).algo
    assert door.name == "grpo_modulate"
    torch.testing.assert_close(compute_credit(door, TABLE)[0], compute_credit(ours, TABLE)[0], atol=0, rtol=0)
    plain = compute_credit(load(["algo=grpo"]).algo, TABLE)[0]
    assert not torch.equal(compute_credit(door, TABLE)[0], plain)


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("shape", r"its shape is \[3\], and there are 4 steps"),
        ("infinite", "4 of 4 are not finite"),
        ("int", r"not a tensor of torch\.int64"),
        ("list", "not list"),
    ],
)
def test_a_credit_is_not_believed(how: str, answer: str) -> None:
    algo = load(["algo=grpo", f"algo.credit.target={BAD}", f"algo.credit.how={how}"]).algo
    with pytest.raises(CreditError, match=f"{BAD} must return one finite float a step.*{answer}"):
        compute_credit(algo, TABLE)


def test_what_a_credit_does_to_its_arguments_stays_with_it() -> None:
    algo = load(["algo=grpo", f"algo.credit.target={BAD}", "algo.credit.how='in place'"]).algo
    plain = compute_credit(load(["algo=grpo"]).algo, TABLE)[0]
    before = TABLE.entropy_S.clone()
    torch.testing.assert_close(compute_credit(algo, TABLE)[0], 2 * plain)
    assert torch.equal(TABLE.entropy_S, before)


def test_a_model_of_ones_own_checks_several_settings() -> None:
    words = ["algo=grpo", "algo.credit.target=tests.support.outside:clamped"]
    algo = load([*words, "algo.credit.high=0.25"]).algo
    assert compute_credit(algo, TABLE)[0].max() == 0.25
    with pytest.raises(ConfigError, match=r"algo\.credit\.low: must not exceed high \(1\.0\) \(got 2\.0\)"):
        load([*words, "algo.credit.low=2"])


# --- sinks ----------------------------------------------------------------------------------------


def sinks(folder: Path, *specs: dict[str, Any], update: int | None = None) -> Any:
    logger: Any = SimpleNamespace(trackers=["wandb"], csv=False, wandb=SimpleNamespace(mode="disabled"))
    identity = RunIdentity.of_seed("g", 3)
    named = [{"target": "tests.support.outside:Noted", **spec} for spec in specs]
    return open_sinks(
        logger,
        folder,
        run_config={"a": 1, "api_key": "sesame"},
        identity=identity,
        resume_from_update=update,
        brought=named,
    )


def test_a_sink_from_outside_gets_the_run_and_its_rows(tmp_path: Path) -> None:
    fan = sinks(tmp_path, {})
    fan.log(0, {"x": 1.0})
    fan.log(1, {"x": 2.0})
    fan.close(0)
    sink = theirs.Noted.made[-1]
    assert (sink.run.folder, sink.run.identity.name, sink.run.config) == (tmp_path, "g-s3", {"a": 1, "api_key": "***"})
    assert [step for step, _ in sink.calls] == [0, 1, "close"]
    assert sink.run.history == {}
    fan = sinks(tmp_path, {}, update=1)  # goes on after update 0
    assert list(theirs.Noted.made[-1].run.history) == [0]
    assert fan.pointers["noted"] == "noted"


@pytest.mark.parametrize("where", ["start", "log", "summary"])
def test_a_sink_from_outside_that_raises_leaves_the_others(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fan = sinks(tmp_path, {"raises": where}, {})
    fan.log(0, {"x": 1.0})
    fan.summary({"y": 1})
    fan.close(0)
    assert theirs.Noted.made[-1].calls[-1] == ("close", 0)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    assert f"RuntimeError: cannot {where}" in caplog.text


def test_a_sink_that_is_none_is_left_out_with_what_it_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    fan = sinks(tmp_path, {"target": "tests.support.outside:no_sink"})
    fan.log(0, {"x": 1.0})
    assert "what it has made, object, lacks log, summary, close, name, pointer" in caplog.text


def test_a_sink_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger\.sinks\[0\]: .*has no Nothing"):
        sinks(tmp_path, {"target": "tests.support.outside:Nothing"})


@pytest.mark.parametrize("target", ["NamedAsOurs", "noted_as_wandb"])
def test_a_sink_may_not_take_the_name_of_one_of_ours(target: str, tmp_path: Path) -> None:
    answer = r"logger\.sinks\[0\]: its sink is named (csv|wandb), as one of ours"
    with pytest.raises(ConfigError, match=answer):
        sinks(tmp_path, {"target": f"tests.support.outside:{target}"})
    assert not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text()
    if target == "NamedAsOurs":  # before anything is made
        with pytest.raises(ConfigError, match=answer):
            load([f"logger.sinks=['tests.support.outside:{target}']"])


# --- entry points ---------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that offers a benchmark, a sink, and a benchmark of a name that is taken."""
    folder = tmp_path / "coins-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: coins\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(
        "[empg.benchmarks]\ncoin = tests.support.outside:Coin\nalfworld = tests.support.outside:Coin\n"
        "[empg.sinks]\nnoted = tests.support.outside:Noted\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    ConfigStore.instance().repo["benchmark"].pop("coin.yaml", None)


@pytest.mark.usefixtures("installed")
def test_an_installed_benchmark_is_an_option() -> None:
    cfg = load(["benchmark=coin", "benchmark.side=tails", SCRATCH, "logger.sinks=[noted]"])
    assert cfg.benchmark.model_dump().items() >= {"name": "coin", "target": "coin", "side": "tails"}.items()
    assert cfg.logger.sinks == [{"target": "noted", "raises": ""}]
    assert facts(cfg.model_dump())["benchmark"]["package"] == "coins 1.2"
    assert isinstance(make_benchmark(**cfg.benchmark.model_dump()), theirs.Coin)
    assert make_benchmark("coin", side="tails").name == "coin"
    with pytest.raises(ConfigError, match=r"benchmark\.sidee: unknown key .*did you mean benchmark\.side\?"):
        load(["benchmark=coin", "benchmark.sidee=tails", SCRATCH])
    with pytest.raises(ConfigError, match=r"logger\.sinks\[0\]: .*did you mean noted\?"):
        load(["logger.sinks=[notde]"])
    with pytest.raises(ConfigError, match=r"benchmark: has no option 'coi'; did you mean coin\?"):
        load(["benchmark=coi"])


@pytest.mark.usefixtures("installed")
def test_a_name_that_is_taken_stays_ours_and_the_doctor_says_so() -> None:
    assert "target" not in load(["benchmark=alfworld"]).benchmark.model_dump()
    found = {finding.name: finding for finding in doctor.outside()}
    assert found["coin"].value == "benchmark of coins 1.2"
    assert found["noted"].value == "sink of coins 1.2"
    assert found["alfworld"].status is doctor.Status.NOTE
    assert "benchmark.target=tests.support.outside:Coin" in found["alfworld"].advice


@pytest.mark.usefixtures("installed")
def test_a_file_of_the_users_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "mine" / "benchmark").mkdir(parents=True)
    file = "name: mine\ntarget: tests.support.outside:Coin\nside: tails\n"
    (tmp_path / "mine" / "benchmark" / "coin.yaml").write_text(file)
    cfg = load_job("train", ["benchmark=coin", SCRATCH], TrainConfig, str(tmp_path / "mine"))
    assert (cfg.benchmark.name, cfg.benchmark.model_dump()["side"]) == ("mine", "tails")


@pytest.mark.usefixtures("installed")
def test_it_is_completed_without_being_imported() -> None:
    sys.modules.pop("tests.support.outside", None)
    try:
        assert complete_word("benchmark=c", {}) == ["benchmark=coin", "benchmark=custom"]
        load(["benchmark=alfworld"])
        assert "tests.support.outside" not in sys.modules
    finally:
        sys.modules["tests.support.outside"] = theirs
