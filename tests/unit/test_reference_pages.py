"""docs/configuration.md and docs/cli.md are made from the schema and the commands: they are current and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.models import OptionInfo

from empg_cli.cli.app import app
from empg_cli.cli.cli_page import cli_page, words_of
from empg_cli.config.ablation import AblateConfig
from empg_cli.config.configuration_page import configuration_page
from empg_cli.config.keys import known_keys
from empg_cli.config.plan import PlanConfig
from empg_cli.config.schema import EvalConfig, TrainConfig

DOCS = Path(__file__).parents[2] / "docs"
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


MAPPINGS = {"ablation.variants", "endpoint.extra_body"}


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


def test_every_visible_flag_is_told() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for info in app.registered_commands:
        assert info.callback is not None
        for word in words_of(info.callback):
            if isinstance(word.declared, OptionInfo):
                assert all(f"`{spelling}" in page for spelling in word.spellings), word
    assert "`--jobs N`, `-j`" in page and "`--json`" in page
