"""docs/algorithms.md says what conf/algo/ sets, and the worked example of docs/adding-an-algorithm.md works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from empg_cli.config.algo import Algo, ClipLoss, EmpgCredit, NoOverlong

ROOT = Path(__file__).parents[3]


def preset_table():
    """The table of docs/algorithms.md, made from conf/algo/."""
    lines = [
        "| preset | advantage | credit | loss | weighting | KL | entropy | groups | overlong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "conf" / "algo").glob("*.yaml")):
        algo = Algo(**yaml.safe_load(path.read_text()))
        advantage, credit, loss = algo.advantage, algo.credit, algo.loss
        estimator = advantage.estimator
        if hasattr(advantage, "scale_by_std"):
            estimator += ", ÷ std" if advantage.scale_by_std else ""
        knobs = {"history": "K", "alpha": "α", "decay": "d", "gamma": "γ", "omega": "ω"}  # of step credit
        for knob in knobs if hasattr(advantage, "omega") or hasattr(advantage, "history") else ():
            estimator += f", {knobs[knob]} {getattr(advantage, knob)}" if hasattr(advantage, knob) else ""
        modulation = "–"
        if isinstance(credit, EmpgCredit):
            modulation = f"k {credit.k}, ζ {credit.zeta}" + ("" if credit.center else ", not centred")
        kind = "" if isinstance(loss, ClipLoss) else f"{loss.kind} "
        weighting = loss.weighting + (f" {loss.constant_tokens}" if loss.constant_tokens else "")
        kl = f"{loss.kl_coef} {loss.kl_estimator}" if loss.kl_coef else "–"
        groups = f"filtered, ≤ {algo.sampling.max_resamples} more" if algo.sampling.drop_uniform_groups else "all"
        overlong = "–" if isinstance(algo.overlong, NoOverlong) else f"{algo.overlong.limit} / {algo.overlong.buffer}"
        lines.append(
            f"| `{path.stem}` | {estimator} | {modulation} | {kind}{loss.clip_low:g} / {loss.clip_high:g} "
            f"| {weighting} | {kl} | {loss.entropy_coef or '–'} | {groups} | {overlong} |"
        )
    return "\n".join(lines)


def test_the_documented_presets_are_the_shipped_ones():
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    documented = re.search(r"<!-- presets:.*?-->\n(.*?)<!-- /presets -->", text, re.DOTALL)
    assert documented is not None
    assert documented[1].strip() == preset_table(), f"replace the table by:\n{preset_table()}"


def test_the_documented_code_exists():
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    for module, function in re.findall(r"`(\w+)\.(\w+)` \|$", text, re.MULTILINE):
        source = (ROOT / "src" / "empg_cli" / "algorithms" / f"{module}.py").read_text()
        assert f"def {function}(" in source, f"{module}.{function}"


@pytest.mark.skipif(shutil.which("git") is None, reason="the example is applied with `git apply`, and git is missing")
def test_the_worked_example_works(tmp_path):
    """Apply every diff of the page to a copy of the sources, then run the test that the page ends with."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    page = (ROOT / "docs" / "adding-an-algorithm.md").read_text(encoding="utf-8")
    diffs = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    (example,) = re.findall(r"```python\n(# tests/.*?)```", page, re.DOTALL)
    assert len(diffs) == 4
    for diff in diffs:
        applied = subprocess.run(
            ["git", "apply", "-"],
            cwd=tmp_path,
            input=diff,
            text=True,
            capture_output=True,
        )
        assert applied.returncode == 0, f"{applied.stderr}\n{diff}"
    test_file = tmp_path / example.splitlines()[0].removeprefix("# ")
    test_file.parent.mkdir(parents=True)
    test_file.write_text(example)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test_file)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        text=True,
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
