"""One definition per metric: docs are current, and the code logs no name that is not defined."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from empg_cli.observe.catalogue import FAMILIES, METRICS, definition_of, undefined
from empg_cli.observe.metrics_page import with_tables

ROOT = Path(__file__).parents[3]


def test_docs_are_current():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m empg_cli.observe.metrics_page docs/metrics.md"
    assert "| `actor/kl_loss` | nats |" in page


def test_each_name_is_defined_once_and_has_a_family():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert {metric.family for metric in METRICS} == set(FAMILIES)
    for metric in METRICS:
        assert metric.unit
        assert metric.definition.endswith(".")
        assert "|" not in metric.definition  # would break the table


def test_families_with_a_free_part():
    assert definition_of("eval/pick_and_place_simple/success_rate").name == "eval/<kind>/success_rate"
    assert definition_of("timing_s/rollout").name == "timing_s/<phase>"
    assert definition_of("eval/success_rate").name == "eval/success_rate"
    assert undefined(["eval/a/b/success_rate", "actor/kl", "actor/kl_loss", "timing_s/"]) == [
        "actor/kl",
        "eval/a/b/success_rate",
        "timing_s/",
    ]


NOT_METRICS = re.compile(r"hydra/.*|summary/.*|.*\.(json|pt|py|safetensors)|expert/.*|tokens/s")
"""Other strings with a slash in these folders: Hydra groups, files, seeds, units, final numbers in a tracker."""


FOLDERS = ("loop.py", "learner", "evaluation", "algorithms", "rollout", "observe", "runs", "stats")


def metric_literals() -> set[tuple[str, str]]:
    """Every string in the code that looks like a metric name, with its file; `{...}` of f-strings stays."""
    pattern = re.compile(r'"([a-z_]+/[a-z0-9_{}./]+)"')
    return {
        (name, path.name)
        for path in (ROOT / "src" / "empg_cli").rglob("*.py")
        if path.relative_to(ROOT / "src" / "empg_cli").parts[0] in FOLDERS
        for name in pattern.findall(path.read_text(encoding="utf-8"))
        if not NOT_METRICS.fullmatch(name)
    }


@pytest.mark.parametrize(("literal", "file"), sorted(metric_literals()))
def test_every_metric_name_in_the_code_is_defined(literal, file):
    if "{" not in literal:
        # `critic/rewards` is completed to `critic/rewards/mean` where it is used
        is_prefix = any(metric.name.startswith(f"{literal}/") for metric in METRICS)
        assert is_prefix or not undefined([literal]), f"{literal} in {file} is not defined in observe/catalogue.py"
        return
    template = re.compile("[a-z0-9_<>]+".join(map(re.escape, re.split(r"\{[^}]*\}", literal))))
    assert any(template.fullmatch(metric.name) for metric in METRICS), f"nothing in observe/catalogue.py fits {literal}"
