"""WebShop's own three JSON files, plain or gzip, read product by product: the full catalogue is one array of 5 GB."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from empg_cli.benchmarks.webshop.catalog import NO_PRICE, HumanInstruction, Product
from empg_cli.errors import DataError
from empg_cli.invocation import command
from empg_cli.reading.guard import damaged, plain_text, plain_texts, reading
from empg_cli.reading.streams import DAMAGED, open_bytes, read_json

OfficialSet = Literal["small", "full"]

_NAMES: dict[OfficialSet, tuple[str, str]] = {
    "small": ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    "full": ("items_shuffle.json", "items_ins_v2.json"),
}
_HUMAN = "items_human_ins.json"
_CHUNK = 1 << 20
_LONGEST_ITEM = 64 << 20
"""Characters. A product that has not ended by then is a broken file, not a long description."""
_MOST_GOALS = 100_000
"""Combinations of the options of one product."""

_NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""What the official loader gives a product that the attribute file does not list."""


@dataclass(frozen=True, slots=True)
class OfficialFiles:
    items: Path
    instructions: Path
    human: Path | None


def find_files(data_dir: Path, which: OfficialSet) -> OfficialFiles:
    """The files of one set in `data_dir`. Raises DataError with the names it looked for."""
    if not data_dir.is_dir():
        raise DataError(f"benchmark.data_dir: {data_dir} is not a folder")
    items_name, instructions_name = _NAMES[which]
    items, instructions = _plain_or_gzip(data_dir, items_name), _plain_or_gzip(data_dir, instructions_name)
    missing = [name for name, path in ((items_name, items), (instructions_name, instructions)) if path is None]
    if items is None or instructions is None:
        fetch = command("data", "fetch", "webshop", f"data_dir={data_dir}", f"official_set={which}")
        raise DataError(
            f"benchmark.data_dir: {data_dir} lacks {' and '.join(missing)} (or .json.gz) of WebShop's {which} set.\n"
            f"  {fetch} says what to get where; or choose the other set with benchmark.official_set, or play the "
            "generated shop with benchmark.data_dir=null"
        )
    return OfficialFiles(items, instructions, _plain_or_gzip(data_dir, _HUMAN))


def read_products(files: OfficialFiles) -> Iterator[Product]:
    """Products in file order. Broken, repeated and nameless ones are left out, as the official loader does."""
    instructions = _read_object(files.instructions)
    human = _read_object(files.human) if files.human else {}
    seen: set[str] = set()
    matched = 0
    for position, item in enumerate(stream_array(files.items)):
        with reading(f"{files.items}: product {position} is not in WebShop's format"):
            asin = plain_text(item["asin"], "asin")
            if asin == "nan" or len(asin) > 10 or asin in seen:
                continue
            product = _product(item, instructions.get(asin, {}), human.get(asin, []))
        seen.add(asin)
        matched += asin in instructions
        yield product
    if not seen:
        raise DataError(f"{files.items} holds no product")
    if not matched:
        raise DataError(
            f"{files.items} and {files.instructions.name} do not belong together: none of the {len(seen)} products is "
            f"among the {len(instructions)} of the instructions (a small and a full set mixed?)"
        )


def stream_array(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, one at a time, in the memory of one object. Raises DataError."""
    decoder = json.JSONDecoder()
    buffer, position, count = "", 0, 0
    opened = closed = False
    pieces = _pieces(path)
    while not closed:
        piece = next(pieces, "")
        wanted = len(buffer) - position
        while piece and len(piece) < wanted and (more := next(pieces, "")):  # doubled, so that no object is read often
            piece += more
        buffer, position = buffer[position:] + piece, 0
        while True:
            position = _skip(buffer, position, " \t\r\n," if opened else " \t\r\n")
            if position == len(buffer):
                break
            if not opened:
                if buffer[position] != "[":
                    raise DataError(f"{path} must be a JSON array of products; it starts with {buffer[:20]!r}")
                opened, position = True, position + 1
                continue
            if buffer[position] == "]":
                closed = True
                break
            try:
                with reading(f"{path}: product {count}"):
                    item, position = decoder.raw_decode(buffer, position)
            except DataError as error:
                if not isinstance(error.__cause__, json.JSONDecodeError) or len(buffer) - position > _LONGEST_ITEM:
                    raise
                break
            yield item
            count += 1
        if not piece and not closed:
            raise damaged(path, f"ends inside product {count}", DAMAGED)
    rest = buffer[position + 1 :].strip()
    while not rest and (piece := next(pieces, "")):  # to the end of the file, where gzip compares its checksum
        rest = piece.strip()
    if rest:
        raise DataError(f"{path} goes on after its array of products with {rest[:20]!r}; get it again")


def _pieces(path: Path) -> Iterator[str]:
    """The text of a file, plain or gzip, piece by piece. Raises DataError."""
    decoder, done = codecs.getincrementaldecoder("utf-8-sig")(), 0
    with open_bytes(path) as file:
        while True:
            content = file.read(_CHUNK)
            with reading(f"{path}, after byte {done}", DAMAGED):
                text = decoder.decode(content, final=not content)
            if not content:
                return
            done += len(content)
            if text:
                yield text


def _skip(text: str, position: int, blanks: str) -> int:
    while position < len(text) and text[position] in blanks:
        position += 1
    return position


def _product(item: Mapping[str, Any], extra: Mapping[str, Any], human: list[Mapping[str, Any]]) -> Product:
    def text(key: str) -> str:
        return plain_text(item[key], key)

    small = item["small_description"]
    instruction = extra.get("instruction")
    options = _options(item["customization_options"])
    if math.prod(map(len, options.values())) > _MOST_GOALS:
        raise ValueError(f"more than {_MOST_GOALS:,} combinations of options")
    return Product(
        asin=item["asin"],
        title=text("name"),
        description=text("full_description"),
        bullets=plain_texts(small if isinstance(small, list) else [small], "small_description"),
        query=text("query").lower().strip(),
        department=text("category"),
        breadcrumbs=text("product_category"),
        prices=_prices(item.get("pricing")),
        options=options,
        attributes=plain_texts(extra.get("attributes", _NO_ATTRIBUTES), "attributes"),
        instruction=None if instruction is None else plain_text(instruction, "instruction"),
        instruction_attributes=()
        if instruction is None
        else plain_texts(extra["instruction_attributes"], "instruction_attributes"),
        human=tuple(
            HumanInstruction(
                plain_text(said["instruction"], "instruction"),
                plain_texts(said["instruction_attributes"], "instruction_attributes"),
                plain_texts(said["instruction_options"], "instruction_options"),
            )
            for said in human
        ),
    )


def _prices(pricing: str | None) -> tuple[float, ...]:
    """`$5.99` is one price, `$5 to $9` a range, anything without a number WebShop's default."""
    digits = (re.sub(r"[^0-9.]", "", part) for part in (pricing or "").split("$")[1:])
    found = tuple(float(number) for number in digits if re.fullmatch(r"\d+\.?\d*|\.\d+", number))
    if not all(map(math.isfinite, found)):
        raise ValueError("a price has no end")
    return found[:2] or (NO_PRICE,)


def _options(groups: Mapping[str, list[Mapping[str, str]] | None] | str) -> dict[str, tuple[str, ...]]:
    if not groups:
        return {}
    if isinstance(groups, str):
        raise TypeError(f"customization_options is text: {groups[:40]!r}")
    return {
        plain_text(name, "an option").lower(): tuple(
            plain_text(choice["value"], "the value of an option").strip().replace("/", " | ").lower()
            for choice in choices
        )
        for name, choices in groups.items()
        if choices is not None
    }


def _plain_or_gzip(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path, DAMAGED)
    if not isinstance(content, dict):
        raise DataError(f"{path} must be a JSON object by ASIN, got a {type(content).__name__}")
    return content
