"""From settings to a WebShop benchmark, and from official files to a compiled catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from empg_cli.benchmarks.base import DataError
from empg_cli.benchmarks.webshop.benchmark import RewardKind, WebShop
from empg_cli.benchmarks.webshop.catalog import Product
from empg_cli.benchmarks.webshop.generator import generate
from empg_cli.benchmarks.webshop.goals import GoalKind
from empg_cli.benchmarks.webshop.nouns import NounSource, make_tagger
from empg_cli.benchmarks.webshop.official import OfficialSet, find_files, read_products
from empg_cli.benchmarks.webshop.shop import Shop, open_in_memory
from empg_cli.benchmarks.webshop.splits import SplitScheme
from empg_cli.benchmarks.webshop.store import compile_store, is_store, open_store
from empg_cli.benchmarks.webshop.views import View


def make_webshop(
    *,
    data_dir: str | None,
    official_set: OfficialSet,
    num_products: int,
    shop_seed: int,
    price_seed: int,
    goals: GoalKind,
    split_scheme: SplitScheme,
    nouns: NounSource,
    observation: View,
    show_attributes: bool,
    reward: RewardKind,
    success_reward: float,
) -> WebShop:
    """The keys are those of conf/benchmark/webshop.yaml. Raises DataError for data that is missing or broken."""
    shop, source = _open_shop(
        data_dir, official_set, num_products, shop_seed, price_seed, goals, nouns, show_attributes
    )
    return WebShop(
        shop, source=source, split_scheme=split_scheme, view=observation, reward=reward, success_reward=success_reward
    )


def _open_shop(
    data_dir: str | None,
    official_set: OfficialSet,
    num_products: int,
    shop_seed: int,
    price_seed: int,
    goals: GoalKind,
    nouns: NounSource,
    show_attributes: bool,
) -> tuple[Shop, str]:
    # spaCy brings a generated shop no closer to anything official, so `auto` spares it there
    tagger = make_tagger("words" if nouns == "auto" and data_dir is None else nouns)
    options: dict[str, Any] = {"price_seed": price_seed, "show_attributes": show_attributes}
    if data_dir is None:
        return open_in_memory(generate(num_products, shop_seed), goals, tagger, **options), "generated"
    folder = Path(data_dir).expanduser()
    if is_store(folder):
        return open_store(folder, goals, tagger, **options)
    files = find_files(folder, official_set)
    if official_set == "full":
        raise DataError(
            f"the full WebShop catalogue is compiled once before it is played:\n  empg data compile webshop {folder} --set full"
            " --out FOLDER\n  and then benchmark.data_dir=FOLDER"
        )
    if goals == "human" and files.human is None:
        raise DataError(f"benchmark.goals=human needs items_human_ins.json in {folder}")
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
    """Compile official files, or with data_dir=None a generated shop, to the new folder `out`; returns its manifest."""
    products: Iterable[Product]
    if data_dir is None:
        products, source = generate(num_products, shop_seed), "generated"
    else:
        products, source = read_products(find_files(Path(data_dir).expanduser(), official_set)), "official"
    return compile_store(products, Path(out).expanduser(), source=source, price_seed=price_seed, progress=progress)
