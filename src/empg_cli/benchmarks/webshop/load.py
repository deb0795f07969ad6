"""Where a shop comes from: a generator, official files, or a compiled catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.goals import GoalKind
from empg_cli.benchmarks.webshop.nouns import NounSource, make_tagger
from empg_cli.benchmarks.webshop.official import OfficialSet, find_files, read_products
from empg_cli.benchmarks.webshop.shop import Shop, open_in_memory
from empg_cli.benchmarks.webshop.store import compile_store, is_store, open_store
from empg_cli.errors import DataError
from empg_cli.invocation import command
from empg_cli.reading.guard import reading


def open_shop(
    data_dir: str | None,
    *,
    official_set: OfficialSet,
    num_products: int,
    shop_seed: int,
    price_seed: int,
    goals: GoalKind,
    nouns: NounSource,
    show_attributes: bool,
) -> tuple[Shop, str]:
    """The shop, and where its products come from: `generated` or `official`."""
    # spaCy brings a generated shop no closer to anything official, so `auto` spares it there
    tagger = make_tagger("words" if nouns == "auto" and data_dir is None else nouns)
    options: dict[str, Any] = {"price_seed": price_seed, "show_attributes": show_attributes}
    if data_dir is None:
        return open_in_memory(generate(num_products, shop_seed), goals, tagger, **options), "generated"
    folder = Path(data_dir).expanduser()
    if is_store(folder):
        with reading(folder, "Compile the catalogue again"):
            return open_store(folder, goals, tagger, **options)
    files = find_files(folder, official_set)
    if official_set == "full":
        raise DataError(
            "the full WebShop catalogue is compiled once before it is played:\n"
            f"  {command('data', 'compile', 'webshop', str(folder), '--set', 'full', '--out', 'FOLDER')}\n"
            "  and then benchmark.data_dir=FOLDER"
        )
    if goals == "human" and files.human is None:
        raise DataError(f"benchmark.goals=human needs items_human_ins.json (or .json.gz) in {folder}")
    return open_in_memory(read_products(files), goals, tagger, **options), "official"


def compile_webshop(
    data_dir: str | None,
    out: str,
    *,
    official_set: OfficialSet,
    num_products: int,
    shop_seed: int,
    price_seed: int,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Compile official files, or with data_dir=None a generated shop, into the new folder `out`.

    Args:
        progress: called with the number of products done, after each.

    Returns:
        The manifest: source, number of products, price seed, digest, sizes of the files.
    """
    products: Iterable[Product]
    if data_dir is None:
        products, source = generate(num_products, shop_seed), "generated"
    else:
        products, source = read_products(find_files(Path(data_dir).expanduser(), official_set)), "official"
    return compile_store(products, Path(out).expanduser(), source=source, price_seed=price_seed, progress=progress)
