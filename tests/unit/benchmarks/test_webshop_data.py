"""Official files in all their forms, and what is said about broken ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.load import compile_webshop, open_shop
from empg_cli.benchmarks.webshop.official import find_files, read_products
from empg_cli.benchmarks.webshop.store import MANIFEST
from tests.support.webshop import INSTRUCTIONS, ITEMS, as_official, item, write


def read(folder: Path) -> list[Product]:
    return list(read_products(find_files(folder, "small")))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_shop_survives_the_official_formats(tmp_path: Path, compressed: bool) -> None:
    products = list(generate(80, seed=4))
    write(tmp_path, *as_official(products))
    if compressed:
        for path in list(tmp_path.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    assert read(tmp_path) == products


def test_what_the_official_loader_does_to_products(tmp_path: Path) -> None:
    options = {"Color": [{"value": " Red/Blue "}, {"value": "X"}], "empty": None}
    items = [
        item("B1", customization_options=options, pricing="$1,005.99 to $2,000", small_description="One"),
        item("nan"),
        item("B1", name="a repeated ASIN"),
        item("TOOLONGANASIN"),
        item("B2", pricing=""),
        item("B3", pricing="Currently unavailable"),
    ]
    first, second, third = read(write(tmp_path, items, {"B1": {"attributes": ["easy clean"]}}))
    assert first.options == {"color": ("red | blue", "x")}
    assert (first.prices, first.price_tag) == ((1005.99, 2000.0), "$1005.99 to $2000.0")
    assert (first.bullets, first.query, first.attributes) == (("One",), "desk lamps", ("easy clean",))
    assert (second.prices, second.price_tag, second.attributes) == ((100.0,), "$100.0", ("DUMMY_ATTR",))
    assert third.prices == (100.0,)
    assert {first.instruction, second.instruction} == {None}


def test_products_are_streamed_over_chunk_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = list(generate(70, seed=4))
    write(tmp_path, *as_official(products))
    for chunk in (1, 7, 1000):
        monkeypatch.setattr("empg_cli.benchmarks.webshop.official._CHUNK", chunk)
        assert read(tmp_path) == products


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def compress(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def test_the_checksum_after_the_array_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The array ends before the file does: whoever stops at its bracket has not come to gzip's CRC."""
    monkeypatch.setattr("empg_cli.benchmarks.webshop.official._CHUNK", 100)
    products = list(generate(70, seed=4))
    write(tmp_path, *as_official(products))
    packed = compress(tmp_path / ITEMS)
    assert read(tmp_path) == products
    flip(packed, -6)
    with pytest.raises(DataError, match="near byte"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / ITEMS).unlink(), "lacks items_shuffle_1000.json"),
        (lambda d: (d / INSTRUCTIONS).unlink(), "lacks items_ins_v2_1000.json"),
        (lambda d: cut(d / ITEMS, 0.7), "ends inside product"),
        (lambda d: cut(d / INSTRUCTIONS, 0.7), "not valid JSON"),
        (lambda d: cut(compress(d / ITEMS), 0.7), "near byte"),
        (lambda d: cut(compress(d / INSTRUCTIONS), 0.7), "near byte"),
        (lambda d: flip(compress(d / ITEMS), -6), "near byte"),  # a bit of its CRC
        (lambda d: flip(compress(d / INSTRUCTIONS), -6), "near byte"),
        (lambda d: (d / ITEMS).write_text((d / ITEMS).read_text() + " \n x"), "goes on after its array .* 'x'"),
        (lambda d: (d / ITEMS).write_text(""), "ends inside product 0"),
        (lambda d: (d / ITEMS).write_text("[]"), "holds no product"),
        (lambda d: (d / ITEMS).write_text("{}"), "must be a JSON array"),
        (lambda d: (d / ITEMS).write_text("[1]"), "product 0 is not in WebShop's format"),
        (lambda d: (d / ITEMS).write_text('[{"asin": "B1"}]'), "is missing"),
        (lambda d: (d / ITEMS).write_bytes(b'["\xff\xfe"]'), "not UTF-8"),
        (
            lambda d: (
                (d / ITEMS).with_name(ITEMS + ".gz").write_bytes((d / ITEMS).read_bytes()) and (d / ITEMS).unlink()
            ),
            "Not a gzipped file",
        ),
        (lambda d: (d / INSTRUCTIONS).write_text("[]"), "must be a JSON object"),
        (lambda d: (d / INSTRUCTIONS).write_text('{"B9": {"attributes": []}}'), "do not belong together"),
        (lambda d: write(d, [item("B1", customization_options="x")], {"B1": {}}), "customization_options"),
        (lambda d: write(d, [item("B1", name=None)], {"B1": {}}), "product 0 .*name is missing, not text"),
        (lambda d: write(d, [item("B1", name="\ud800")], {"B1": {}}), "product 0 .*half a character"),
        (lambda d: write(d, [item("B1", pricing="$" + "9" * 400)], {"B1": {}}), "product 0 .*a price has no end"),
        (lambda d: write(d, [item("B1", small_description=[1])], {"B1": {}}), "small_description is int, not text"),
        (lambda d: write(d, [item("B1")], {"B1": {"attributes": "soft"}}), "attributes is str, not a list"),
        (lambda d: write(d, [item("B1")], {"B1": [1]}), "product 0 .*broken"),
        (
            lambda d: write(
                d,
                [item("B1", customization_options={f"o{n}": [{"value": str(v)} for v in range(20)] for n in range(4)})],
                {"B1": {}},
            ),
            "more than 100,000 combinations",
        ),
        (lambda d: (d / ITEMS).write_text("[" * 100_000), "product 0: is nested too deep"),
        (lambda d: (d / INSTRUCTIONS).write_text("[" * 100_000), "nested too deep"),
        (lambda d: (d / ITEMS).write_text((d / ITEMS).read_text(), encoding="utf-16"), "not UTF-8"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    write(tmp_path, *as_official(list(generate(70, seed=4))))
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_an_object_that_never_ends_is_not_read_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [item("B1")], {"B1": {}})
    (tmp_path / ITEMS).write_text('[{"asin": oops' + " " * 5000)
    monkeypatch.setattr("empg_cli.benchmarks.webshop.official._CHUNK", 100)
    monkeypatch.setattr("empg_cli.benchmarks.webshop.official._LONGEST_ITEM", 1000)
    with pytest.raises(DataError, match="product 0: not valid JSON"):
        read(tmp_path)


KEYS: dict[str, Any] = {
    "official_set": "small",
    "num_products": 100,
    "shop_seed": 0,
    "price_seed": 0,
    "goals": "synthetic",
    "nouns": "words",
    "show_attributes": False,
}


def test_opening_needs_the_right_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        open_shop(str(tmp_path / "nowhere"), **KEYS)
    with pytest.raises(DataError, match=r"lacks .* set.*\n.*data fetch webshop"):
        open_shop(str(tmp_path), **KEYS)


def test_the_full_set_wants_to_be_compiled(tmp_path: Path) -> None:
    items, instructions, _human = as_official(list(generate(70, seed=4)))
    (tmp_path / "items_shuffle.json").write_text(json.dumps(items))
    (tmp_path / "items_ins_v2.json").write_text(json.dumps(instructions))
    with pytest.raises(DataError, match="empg data compile webshop"):
        open_shop(str(tmp_path), **(KEYS | {"official_set": "full"}))
    out = tmp_path / "compiled"
    compile_webshop(
        str(tmp_path), str(out), official_set="full", num_products=1, shop_seed=0, price_seed=0, progress=lambda _: None
    )
    shop, source = open_shop(str(out), **KEYS)
    assert (source, len(shop.products)) == ("official", 70)
    with pytest.raises(DataError, match="no human goals"):
        open_shop(str(out), **(KEYS | {"goals": "human"}))


def test_human_goals_need_their_file(tmp_path: Path) -> None:
    items, instructions, _human = as_official(list(generate(70, seed=4)))
    write(tmp_path, items, instructions)
    with pytest.raises(DataError, match=r"items_human_ins\.json"):
        open_shop(str(tmp_path), **(KEYS | {"goals": "human"}))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    keys: dict[str, Any] = {"official_set": "small", "num_products": 80, "shop_seed": 0, "price_seed": 0}
    compile_webshop(None, str(tmp_path / "store"), **keys, progress=lambda _count: None)
    return tmp_path / "store"


def drop_key(store: Path) -> None:
    manifest = json.loads((store / MANIFEST).read_text())
    del manifest["bytes"]
    (store / MANIFEST).write_text(json.dumps(manifest))


def set_version(store: Path) -> None:
    manifest = json.loads((store / MANIFEST).read_text())
    (store / MANIFEST).write_text(json.dumps(manifest | {"version": 99}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store: (store / "terms.txt").unlink(), "terms.txt is missing"),
        (lambda store: cut(store / "products.jsonl", 0.5), "products.jsonl has .* bytes instead of"),
        (lambda store: cut(store / MANIFEST, 0.5), "not valid JSON"),
        (drop_key, "'bytes' is missing"),
        (set_version, "compiled as version 99"),
        (lambda store: flip(store / "price.npy", -3), "price.npy is not what was written"),
        (lambda store: flip(store / "goals_synthetic.npy", -3), "goals_synthetic.npy is not what was written"),
        (lambda store: flip(store / "terms.txt", 10), "terms.txt is not what was written"),
        (lambda store: flip(store / MANIFEST, -80), "not valid JSON|not what was written|is missing|has .* bytes"),
    ],
)
def test_a_damaged_store_is_named(store: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(store)
    with pytest.raises(DataError, match=message) as error:
        open_shop(str(store), **KEYS)
    assert "ompile" in str(error.value)


def test_a_damaged_product_is_not_shown(store: Path) -> None:
    flip(store / "products.jsonl", 20)
    shop, _ = open_shop(str(store), **KEYS)
    assert shop.products[1].title
    with pytest.raises(DataError, match="product 0 is not what was written; compile"):
        shop.products[0]


def test_a_store_has_one_price_seed(store: Path) -> None:
    with pytest.raises(DataError, match=r"price_seed=0, the run asks for 5"):
        open_shop(str(store), **(KEYS | {"price_seed": 5}))


def test_compiling_never_overwrites_and_leaves_nothing_half_done(store: Path) -> None:
    keys: dict[str, Any] = {"official_set": "small", "num_products": 80, "shop_seed": 0, "price_seed": 0}
    with pytest.raises(DataError, match="exists already"):
        compile_webshop(None, str(store), **keys, progress=lambda _count: None)

    def stop(count: int) -> None:
        if count == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_webshop(None, str(store.with_name("other")), **keys, progress=stop)
    assert [path.name for path in store.parent.iterdir()] == ["store"]
