"""Run folders for reports, and a page as a browser would read it."""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from empg_cli import config
from empg_cli.config import load
from empg_cli.config.schema import TrainConfig
from empg_cli.reports.page.page import write_page
from empg_cli.runs.reading import open_runs

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m"


@cache
def composed(*overrides: str) -> TrainConfig:
    return load(list(overrides))


def make_run(folder: Path, *, seed: int = 0, trajectories: int = 4, steps: int = 3, text: str = "look") -> Path:
    folder.mkdir(parents=True)
    config.write(composed(f"seed={seed}"), folder / "config.yaml")
    facts = {"config_hash": "abc", "commit": "c0ffee", "loss_weighting": "token", "data": {"source": "generated"}}
    (folder / "run.json").write_text(json.dumps(facts))
    rows = [
        {
            "update": update,
            "eval/success_rate": 0.4 + 0.1 * update + 0.1 * seed,
            "eval/success_rate_lo": 0.3,
            "eval/success_rate_hi": 0.8,
            "eval/n": 140,
            "actor/kl_loss": 0.01 * update,
        }
        for update in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trajectories").mkdir()
    for update in (1, 2):
        records = [record(number, update, steps, text) for number in range(trajectories)]
        content = "".join(json.dumps(entry) + "\n" for entry in records)
        (folder / "trajectories" / f"update-{update:06d}-train.jsonl").write_text(content)
    return folder


def record(number: int, update: int, steps: int, text: str) -> dict[str, Any]:
    step = {"action": text, "well_formed": True, "admissible": False, "reward": 0.0, "tokens": 3,
            "entropy": 0.5, "advantage": -1.0, "g": 1.2, "f": 0.8, "credit": -1.16}  # fmt: skip
    return {
        "phase": "train", "update": update, "task_id": f"task {number}", "kind": "pick", "split": "train",
        "group": 0, "index": number, "status": "step_limit", "success": number % 2 == 0, "score": 0.0,
        "reward": -0.1, "error": None,
        "steps": [{"observation": f"{text} {number} {turn} " + "x" * 300, **step} for turn in range(steps)],
    }  # fmt: skip


def with_texts(folder: Path, prompt: str, response: str, **more: Any) -> Path:
    """Prompt and response for every step that the run has kept."""
    for file in (folder / "trajectories").iterdir():
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for number, entry in enumerate(records):
            for turn, step in enumerate(entry["steps"]):
                step |= {"prompt": f"{number} {turn} {prompt}", "response": response, **more}
        file.write_text("".join(json.dumps(entry) + "\n" for entry in records))
    return folder


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, addresses, and the texts of scripts and style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: dict[str, str] = {}
        self.texts: list[str] = []
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("script", "style"):
            self._open = dict(attrs).get("id") or tag
            self.scripts[self._open] = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.scripts[self._open] += data
        else:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    @property
    def data(self) -> dict[str, Any]:
        unpacked: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(self.scripts["packed"])))
        return unpacked


def page_of(folders: list[Path], out: Path) -> tuple[str, Reader]:
    write_page(open_runs(folders), out)
    text = out.read_text()
    return text, Reader(text)
