"""Run folders of earlier versions: what they did is what their config now says."""

from __future__ import annotations

from pathlib import Path

import yaml

from empg_cli import config
from empg_cli.runs.config_file import saved_values
from empg_cli.runs.identity import differences


def test_a_run_from_before_the_penalty_had_a_place_took_it_off_the_return(tmp_path: Path) -> None:
    cfg = config.load(["algo=gigpo"])
    config.write(cfg, tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del saved["algo"]["advantage"]["penalty"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert differences(saved_values(tmp_path), cfg, done=0) == ([], [])
    step = cfg.algo.advantage.model_copy(update={"penalty": "step"})
    other = cfg.model_copy(update={"algo": cfg.algo.model_copy(update={"advantage": step})})
    refused, _ = differences(saved_values(tmp_path), other, done=0)
    assert [problem.key for problem in refused] == ["algo.advantage.penalty"]
