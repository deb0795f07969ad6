"""A catalogue compiled to memory-mapped files, once: any number of products opens at once, shared by all processes.

The compiled shop is the same shop: products, prices, goals, search results and digest equal those of `open_in_memory`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import random
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empg_cli.benchmarks.building import built_aside
from empg_cli.benchmarks.webshop.bm25 import Index, Postings, build_postings
from empg_cli.benchmarks.webshop.catalog import Product, decode, encode
from empg_cli.benchmarks.webshop.goals import GOAL_KINDS, GoalKind, GoalList, GoalSource, goal_sources, make_table
from empg_cli.benchmarks.webshop.nouns import NounTagger
from empg_cli.benchmarks.webshop.reward import Reward
from empg_cli.benchmarks.webshop.shop import Shop
from empg_cli.benchmarks.webshop.splits import bucket
from empg_cli.errors import DataError
from empg_cli.reading.guard import reading
from empg_cli.reading.seal import crc32
from empg_cli.reading.streams import read_json

_AGAIN = "Compile the catalogue again"
MANIFEST = "webshop-store.json"
_VERSION = 2
_PRODUCTS, _TERMS = "products.jsonl", "terms.txt"
_KEPT_PRODUCTS = 512
"""Decoded products that a process keeps at hand."""


def compile_store(
    products: Iterable[Product],
    out: Path,
    *,
    source: str,
    price_seed: int,
    progress: Callable[[int], None] = lambda _count: None,
) -> dict[str, Any]:
    """Write the catalogue, its index and its goals to the new folder `out`; returns the manifest.

    One pass over the products. `out` appears whole or not at all.

    Args:
        source: `official` or `generated`; the benchmark's fingerprint repeats it.
        progress: called with the number of products done, after each.
    """
    if out.exists():
        raise DataError(f"{out} exists already; remove it or choose another folder")
    with built_aside(out) as folder:
        return _write(products, folder, source, price_seed, progress)


def _write(
    products: Iterable[Product], folder: Path, source: str, price_seed: int, progress: Callable[[int], None]
) -> dict[str, Any]:
    rng = random.Random(price_seed)
    offsets, prices, asins, checks = [0], [], [], []
    sources: dict[GoalKind, list[GoalSource]] = {kind: [] for kind in GOAL_KINDS}
    digest = hashlib.sha256()

    with (folder / _PRODUCTS).open("wb") as file:

        def write_each() -> Iterator[str]:
            for row, product in enumerate(products):
                line = encode(product)
                file.write(line)
                digest.update(line)
                checks.append(zlib.crc32(line))
                offsets.append(offsets[-1] + len(line))
                prices.append(product.draw_price(rng))
                asins.append(product.asin)
                for kind in GOAL_KINDS:
                    sources[kind] += goal_sources(row, product, kind)
                yield product.index_text()
                progress(row + 1)

        terms, postings = build_postings(write_each(), asins)

    arrays: dict[str, NDArray[Any]] = {
        "product_offset": np.array(offsets, dtype=np.int64),
        "product_crc32": np.array(checks, dtype=np.uint32),
        "price": np.array(prices, dtype=np.float64),
        "bucket": np.array([bucket(asin) for asin in asins], dtype=np.uint8),
        "posting_start": postings.start,
        "posting_document": postings.document,
        "posting_impact": postings.impact,
        "tie_rank": postings.tie_rank,
    }
    after_prices = rng.getstate()
    for kind in GOAL_KINDS:  # each kind draws its ceilings as if it were the only one
        rng.setstate(after_prices)
        arrays[f"goals_{kind}"] = make_table(sources[kind], prices, rng)
    encoded_terms = [term.encode("utf-8", "surrogatepass") for term in terms]
    (folder / _TERMS).write_bytes(b"".join(encoded_terms))
    arrays["term_offset"] = np.cumsum([0, *map(len, encoded_terms)], dtype=np.int64)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)

    manifest: dict[str, Any] = {
        "version": _VERSION,
        "source": source,
        "products": len(asins),
        "goals": {kind: len(arrays[f"goals_{kind}"]) for kind in GOAL_KINDS},
        "price_seed": price_seed,
        "digest": digest.hexdigest(),
        "bytes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "crc32": {path.name: crc32(path) for path in sorted(folder.iterdir()) if path.name != _PRODUCTS},
    }
    manifest["check"] = _check(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def is_store(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises DataError for another version and for files that are missing, cut short or damaged.

    Everything is read but the products, by far the largest file: `StoredProducts` checks each as it is decoded.
    """
    path = folder / MANIFEST
    manifest: dict[str, Any] = read_json(path, _AGAIN)
    with reading(path, _AGAIN):
        version, expected = manifest["version"], manifest["bytes"]
    if version != _VERSION:
        raise DataError(
            f"{folder} was compiled as version {version}, this empg reads version {_VERSION}; compile it again"
        )
    if manifest.get("check") != _check(manifest):
        raise DataError(f"{path} is not what was written; compile the catalogue again")
    for name, size in expected.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise DataError(f"{folder / name} {state}; compile the catalogue again")
    for name, crc in manifest["crc32"].items():
        if crc32(folder / name) != crc:
            raise DataError(f"{folder / name} is not what was written; compile the catalogue again")
    return manifest


def _check(manifest: dict[str, Any]) -> int:
    rest = {key: value for key, value in manifest.items() if key != "check"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def open_store(
    folder: Path, goals: GoalKind, tagger: NounTagger, *, price_seed: int, show_attributes: bool = False
) -> tuple[Shop, str]:
    """The compiled shop, mapped, and where its products came from (`official` or `generated`)."""
    manifest = read_manifest(folder)
    if not manifest["goals"][goals]:
        raise DataError(f"{folder} holds no {goals} goals; its official files had none")
    if manifest["price_seed"] != price_seed:
        raise DataError(
            f"{folder} was compiled with price_seed={manifest['price_seed']}, the run asks for {price_seed}: "
            f"set benchmark.price_seed={manifest['price_seed']} or compile the catalogue again"
        )

    def mapped(name: str) -> NDArray[Any]:
        values: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
        return values.view(np.ndarray)  # np.memmap's own indexing is slow

    products = StoredProducts(folder / _PRODUCTS, mapped("product_offset"), mapped("product_crc32"))
    postings = Postings(
        mapped("posting_start"), mapped("posting_document"), mapped("posting_impact"), mapped("tie_rank")
    )
    shop = Shop(
        products=products,
        prices=mapped("price"),
        buckets=mapped("bucket"),
        index=Index(StoredTerms(folder / _TERMS, mapped("term_offset")), postings),
        goals=GoalList(products, mapped(f"goals_{goals}"), goals),
        reward=Reward(tagger.nouns),
        noun_tagger=tagger.name,
        price_seed=price_seed,
        digest=manifest["digest"],
        show_attributes=show_attributes,
    )
    return shop, manifest["source"]


class StoredProducts:
    """Products read from a mapped file when asked for; the last few hundred are kept."""

    def __init__(self, path: Path, offsets: NDArray[np.int64], checks: NDArray[np.uint32]) -> None:
        self._path = path
        self._lines = _map(path)
        self._offsets = offsets
        self._checks = checks
        self._recent: OrderedDict[int, Product] = OrderedDict()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int, /) -> Product:
        product = self._recent.get(row)
        if product is None:
            line = self._lines[int(self._offsets[row]) : int(self._offsets[row + 1])]
            if zlib.crc32(line) != self._checks[row]:
                raise DataError(f"{self._path}: product {row} is not what was written; compile the catalogue again")
            product = decode(line)
            self._recent[row] = product
            if len(self._recent) > _KEPT_PRODUCTS:
                self._recent.popitem(last=False)
        return product


class StoredTerms:
    """Rows of sorted terms, found by bisection in a mapped file: a dictionary of a million terms would fill 100 MB."""

    def __init__(self, path: Path, offsets: NDArray[np.int64]) -> None:
        self._text = _map(path)
        self._offsets = offsets

    def get(self, term: str, /) -> int | None:
        wanted = term.encode("utf-8", "surrogatepass")
        low, high = 0, len(self._offsets) - 1
        while low < high:
            middle = (low + high) // 2
            found = self._text[int(self._offsets[middle]) : int(self._offsets[middle + 1])]
            if found == wanted:
                return middle
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        return None


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
