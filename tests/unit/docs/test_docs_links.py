"""Every link inside the repository, from any of its Markdown files, leads to a file and a heading that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.pages import ROOT, anchors, blocks, links, pages, text_of


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}: there is no such file"
        if anchor:
            name = target.resolve().relative_to(ROOT).as_posix()
            assert anchor in anchors(name), (
                f"{page}: {link}: no heading of this name; there are {sorted(anchors(name))}"
            )


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("docs/")])
def test_pages_of_the_site_link_to_each_other_only(page: str) -> None:
    """A page of the site cannot reach what lies outside docs/ by a relative link."""
    outside = [
        link
        for link in links(page)
        if link.startswith("../")
        and not ((ROOT / page).parent / link.partition("#")[0]).resolve().is_relative_to(ROOT / "docs")
    ]
    assert outside == []


def test_files_that_are_named_in_code_spans_exist() -> None:
    """`docs/x.md`, `tests/unit/test_x.py`, `src/empg_cli/x.py`, `scripts/x.py`, `conf/x.yaml`."""
    missing = []
    for page in pages():
        if page == "CHANGELOG.md" or page == "docs/adding-an-algorithm.md":  # of other times; of files to be made
            continue
        for name in re.findall(r"`((?:docs|tests|src|scripts|conf)/[\w./-]+\.\w+)`", text_of(page)):
            if not (ROOT / name).exists():
                missing.append(f"{page}: {name}")
    assert missing == []


def test_the_site_shows_every_page() -> None:
    def files(entry: Any) -> Iterator[str]:
        match entry:
            case str():
                yield entry
            case list() | dict():
                for inner in entry if isinstance(entry, list) else entry.values():
                    yield from files(inner)

    shown = list(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = [page.removeprefix("docs/") for page in pages() if page.startswith("docs/")]
    assert sorted(shown) == sorted(written)


def test_there_are_pages_and_blocks() -> None:
    assert {"README.md", "docs/scaling.md", "CONTRIBUTING.md"} <= set(pages())
    assert sum(1 for page in pages() for _ in blocks(page)) > 50
    assert "the-house" in anchors("docs/architecture.md")
