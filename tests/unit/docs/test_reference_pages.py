"""docs/configuration.md and docs/cli.md are made from the schema and the commands: they are current and complete."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.models import OptionInfo

from empg_cli.cli.app import app
from empg_cli.cli.cli_page import cli_page, words_of
from empg_cli.config import load
from empg_cli.config.ablation import AblateConfig
from empg_cli.config.configuration_page import configuration_page
from empg_cli.config.keys import known_keys
from empg_cli.config.plan import PlanConfig
from empg_cli.config.schema import EvalConfig, TrainConfig
from empg_cli.observe.observer import _identity
from empg_cli.runs.folder import OpenFolder

DOCS = Path(__file__).parents[3] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.+?) \| (.*) \|$", CONFIGURATION, re.MULTILINE)


def test_the_page_of_keys_is_current() -> None:
    assert configuration_page() == CONFIGURATION, (
        "run: python -m empg_cli.config.configuration_page docs/configuration.md"
    )


def test_the_page_of_commands_is_current() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert cli_page() == page, "run: python -m empg_cli.cli.cli_page docs/cli.md"


@pytest.mark.parametrize("schema", [TrainConfig, EvalConfig, AblateConfig, PlanConfig])
def test_every_key_has_a_row_or_a_section(schema: type[BaseModel]) -> None:
    told = {key for key, *_ in ROWS} | set(re.findall(r"^##+ `([\w.]+)`$", CONFIGURATION, re.MULTILINE))
    choosing = set(re.findall(r"^`([\w.]+)` is ", CONFIGURATION, re.MULTILINE))
    assert set(known_keys(schema)) - told - choosing == set()


def test_every_key_has_a_type_and_a_meaning() -> None:
    assert len(ROWS) > 200
    assert [key for key, kind, _, said in ROWS if not said or not kind] == []
    assert [key for key, kind, *_ in ROWS if kind == "mapping" and key not in MAPPINGS] == []


MAPPINGS = {"ablation.variants", "ablation.tuning.space", "endpoint.extra_body"}


def test_types_bounds_and_defaults_by_hand() -> None:
    assert (
        "| `algo.group_size` | integer ≥ 2 | `8` | Trajectories per task; their mean is the baseline. |"
        in CONFIGURATION
    )
    assert "| `trainer.health.entropy_ratio` | number ≥ 0, < 1 | `0.2` |" in CONFIGURATION
    assert "| `model.lora.targets` | list of text (at least one) or null | `null` |" in CONFIGURATION
    assert "| `trainer.tokens_per_microbatch` | integer > 0 or `auto` | `4096` |" in CONFIGURATION
    assert ("benchmark.max_steps", "`15`") in [
        (key, default) for key, _, default, _ in ROWS
    ]  # WebShop's, not ALFWorld's
    assert "**Read when `algo.credit.kind=empg`**, chosen by `algo=aem`" in CONFIGURATION


def test_names_of_folders_are_documented_as_they_are_written(tmp_path: Path) -> None:
    page = (DOCS / "run-folder.md").read_text(encoding="utf-8").partition("## Names")[2].partition("\n## ")[0]
    cfg = load([])
    shape = r"`(runs/BENCHMARK-ALGO-MODEL/TIME-sSEED)`, such as `(runs/[\w/-]+)`"
    form, example = re.search(shape, page).groups()  # type: ignore[union-attr]
    values = {"BENCHMARK": "alfworld", "ALGO": "empg", "MODEL": "tiny", "TIME": r"\d{8}-\d{6}", "SEED": "0"}
    for word, value in values.items():
        form = form.replace(word, value)
    assert re.fullmatch(form, cfg.run_dir) and re.fullmatch(form, example)
    assert re.fullmatch(r"runs/eval/\d{8}-\d{6}", load([], "eval").run_dir) and "`runs/eval/TIME`" in page
    folder = OpenFolder(tmp_path, None, 0, "generated", (), date(2026, 1, 1))
    name = _identity(cfg, folder)
    assert re.fullmatch(r"alfworld-empg-[0-9a-f]{6}", name.group) and name.name == f"{name.group}-s0"


def test_every_visible_flag_is_told() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for info in app.registered_commands:
        assert info.callback is not None
        for word in words_of(info.callback):
            if isinstance(word.declared, OptionInfo):
                assert all(f"`{spelling}" in page for spelling in word.spellings), word
    assert "`--jobs N`, `-j`" in page and "`--json`" in page
