"""The Markdown files of the repository: their code blocks, commands and links.

What a block is for stands in its first line, and what is not run says why in the line before:

    ```bash                                 commands: each is parsed, and its settings are composed and validated
    ```python                               runs in an empty folder
    ```yaml, json, toml                     is read
    ```text                                 output, file trees, forms: nothing to run
    <!-- not run: needs a GPU -->           a block that no test can run, and why
    <!-- run by: tests/e2e/test_x.py -->    a block that this test takes from the page and runs

Words in capitals stand for what the reader has (DIR, RUN, NAME), `runs/...` for a run folder, and `...` alone for the
words of the first command in the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOPS = (".", "docs", ".github", "tests/fixtures", "src/empg_cli/assets", "src/empg_cli/benchmarks")
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (not run|run by): (.+?) -->\s*$")
LANGUAGES = ("bash", "python", "yaml", "json", "toml", "diff", "text")


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    line: int
    language: str
    content: str
    mark: str | None
    """`not run` or `run by`."""
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Paths of all Markdown files, from the top of the repository."""
    found: set[Path] = set()
    for top in TOPS:
        found |= set((ROOT / top).glob("*.md")) if top == "." else set((ROOT / top).rglob("*.md"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    text = text_of(page)
    for found in FENCE.finditer(text):
        before = text[: found.start()].rstrip("\n").rpartition("\n")[2]
        mark = MARK.search(before)
        content = "".join(line.removeprefix(found[1]) for line in found[3].splitlines(keepends=True))
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[2].strip(), content, *(mark.groups() if mark else (None, "")))


def shell_lines(block: Block) -> Iterator[str]:
    """Commands without comments, continued lines joined, exported variables put in, `...` as the first one's words."""
    variables = {"HOME": "home"}
    first: list[str] | None = None
    for line in block.content.replace("\\\n", " ").splitlines():
        command = re.split(r"(?:^|\s)# |\s+#\s", f"{line} ")[0].strip()
        if not command:
            continue
        for name, value in re.findall(r'^export (\w+)="(.*)"$', command):
            variables[name] = value
        for name, value in variables.items():
            command = command.replace(f"${name}", value)
        command = re.sub(r"(?<=\s)runs/(\S*/)?\.\.\.(?=/|\s|$)|(?<==)runs/\.\.\.(?=/|\s|$)", "RUN", command)
        words = command.split(" ")
        if "..." in words and first is not None:
            place = words.index("...")
            command = " ".join([*words[:place], *first, *words[place + 1 :]])
        elif first is None and words[0] == "empg":
            first = [word for word in words[2:] if word]
        yield command


def spans(page: str) -> Iterator[str]:
    """Code spans outside blocks that are a whole `empg` command."""
    outside = FENCE.sub("", text_of(page))
    for span in re.findall(r"`(empg [a-z]+ [^`]+)`", outside):
        command = " ".join(span.split()).replace("runs/...", "RUN")
        if "..." not in command:
            yield command


def anchors(page: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        names.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return names | set(re.findall(r'<a (?:id|name)="([^"]+)"', text_of(page)))


def links(page: str) -> Iterator[str]:
    """Targets of links and pictures outside blocks and code spans."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text_of(page)))
    yield from re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text)
    yield from re.findall(r'<(?:img|a)[^>]* (?:src|href)="([^"]+)"', text)
