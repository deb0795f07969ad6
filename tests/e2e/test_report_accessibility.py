"""The report as axe-core judges it, in light and dark, wide and narrow: of a run, of a study, and of Deep Search.

axe-core is not part of this repository (MPL-2.0): `make axe` fetches it. What it cannot judge, text on charts, is
judged here by the same rule (WCAG 2.2, 1.4.3: a contrast of 4.5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empg_cli import config
from empg_cli.reports.page.page import write_page
from empg_cli.reports.tables import Cell, Table
from empg_cli.runs.reading import open_runs
from tests.support.chromium import HAS_CHROMIUM, WITHOUT_CHROMIUM, chromium, emulating
from tests.support.report_page import composed, make_run, record

AXE = Path(__file__).parents[2] / "build" / "axe" / "package" / "axe.min.js"
pytestmark = pytest.mark.skipif(not HAS_CHROMIUM, reason=WITHOUT_CHROMIUM)
with_axe = pytest.mark.skipif(not AXE.is_file(), reason=f"needs axe-core in {AXE.parent}: make axe")
PAGES = ("run", "study", "deepsearch")
GRAVE = ("serious", "critical")
TEXT_CONTRAST = 4.5
CONTRASTS = """
const channel = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(channel);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = light(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll("figure svg text")].map((node) => {
  const [low, high] = [light(getComputedStyle(node).fill), ground].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
});
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    members = {
        "run": [made(folder / "a", ["seed=0"], "look", "heat")],
        "study": [
            made(folder / f"zeta-{zeta}-s{seed}", [f"seed={seed}", "algo=empg", f"algo.credit.zeta={zeta}"], "look")
            for zeta in (0.1, 0.2)
            for seed in (0, 1)
        ],
        "deepsearch": [made(folder / "ds", ["seed=0", "experiment=deepsearch"], "1hop", "id", "ood", "overall")],
    }
    cells = (Cell("zeta-0.1"), Cell("50.0 (equal in all 2)", bold=True))
    table = Table("ablation zeta", ("variant", "success"), (cells,), ("a note",), ("MIXED code.",))
    for name, runs in members.items():
        write_page(open_runs(runs), folder / f"{name}.html", tables=[table] if name == "study" else ())
    return {name: folder / f"{name}.html" for name in members}


def made(folder: Path, overrides: list[str], *kinds: str) -> Path:
    """Two updates with an evaluation, a warning, and steps of every look: malformed, refused, of credit zero."""
    run = make_run(folder)
    config.write(composed(*overrides), run / "config.yaml")
    (run / "run.json").write_text(json.dumps({"config_hash": overrides[-1], "data": {"source": "generated"}}))
    rows = [
        {"update": n, "eval/success_rate": 0.5, "eval/success_rate_lo": 0.2, "eval/success_rate_hi": 0.8, "eval/n": 9,
         "actor/kl_loss": 0.1 * n, "env/episodes": 8 * n, "env/tokens": 90 * n, "perf/time_per_step": 60,
         **{f"eval/{kind}/success_rate": 0.25 * n for kind in kinds}}
        for n in (1, 2)
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "health.jsonl").write_text(json.dumps({"update": 2, "name": "kl_spike", "text": "It rose."}) + "\n")
    kept = [record(number, 2, 4, "go north") for number in range(4)]
    for turn, step in enumerate(kept[0]["steps"]):
        step |= {"credit": 0.5 * (turn - 1), "well_formed": turn > 0, "prompt": "read", "response": "wrote"}
    lines = "".join(json.dumps(entry) + "\n" for entry in kept)
    (run / "trajectories" / "update-000002-train.jsonl").write_text(lines)
    return run


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def found(browser: Any) -> list[str]:
    """What axe calls serious or critical, on the page as it is now."""
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    violations: list[dict[str, Any]] = browser.execute_async_script(
        "const done = arguments[0]; axe.run(document).then((told) => done(told.violations.map("
        "({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html) }))))"
    )
    return [f"{one['id']}: {one['nodes'][:3]}" for one in violations if one["impact"] in GRAVE]


@with_axe
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_grave(browser: Any, pages: dict[str, Path], name: str, theme: str, width: int) -> None:
    with emulating(browser, theme=theme, width=width):
        browser.get(pages[name].as_uri())
        browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert found(browser) == []


@with_axe
def test_axe_sees_a_fault_that_is_planted(browser: Any, pages: dict[str, Path]) -> None:
    browser.get(pages["run"].as_uri())
    browser.execute_script(
        "document.querySelector('label[for=axis]').remove(); document.querySelector('h1').style.color = '#ddd'"
    )
    assert {fault.partition(":")[0] for fault in found(browser)} == {"select-name", "color-contrast"}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_charts_can_be_read(browser: Any, pages: dict[str, Path], theme: str) -> None:
    with emulating(browser, theme=theme):
        browser.get(pages["run"].as_uri())
        ratios = browser.execute_script(CONTRASTS)
    assert len(ratios) > 20 and min(ratios) >= TEXT_CONTRAST
