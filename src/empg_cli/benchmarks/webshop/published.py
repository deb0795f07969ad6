"""WebShop's files as its authors publish them: on Google Drive, by the addresses in setup.sh of
github.com/princeton-nlp/WebShop.

Google does not serve them to programs for long (issues 40 and 46 there). Sizes and checksums are those that holders of
the files have published independently of each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from empg_cli.benchmarks import published as common
from empg_cli.benchmarks.published import Count, PublishedFile, Survey
from empg_cli.benchmarks.webshop.official import OfficialSet, find_files, read_products

_DRIVE: Final = "https://drive.google.com/uc?id="
HUMAN: Final = PublishedFile(
    "items_human_ins.json",
    f"{_DRIVE}14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O",
    "instructions by people, for benchmark.goals=human",
    5_137_548,
    "cf78667548a71786e1d9049c24b802e48e1084ad4bb021cae56ce1f6d96954a3",
    by_browser=True,
    is_needed=False,
)
SETS: Final[dict[OfficialSet, tuple[PublishedFile, ...]]] = {
    "small": (
        PublishedFile(
            "items_shuffle_1000.json",
            f"{_DRIVE}1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib",
            "1,000 products",
            4_467_013,
            "30a4765c3a327af72d9a9a95a6b2486d516f0fa1d3ecd83681901ce82a21b269",
            by_browser=True,
        ),
        PublishedFile(
            "items_ins_v2_1000.json",
            f"{_DRIVE}1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu",
            "their attributes",
            147_099,
            "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
            by_browser=True,
        ),
        HUMAN,
    ),
    "full": (
        PublishedFile(
            "items_shuffle.json",
            f"{_DRIVE}1A2whVgOO0euk5O13n2iYDM0bQRkkRduB",
            "1.18 million products",
            5_479_720_229,
            "2ef591d65df3af89e972ab72468eb82cbf124d876552d9f3678667edd620a6c8",
            by_browser=True,
        ),
        PublishedFile(
            "items_ins_v2.json",
            f"{_DRIVE}1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi",
            "their attributes",
            186_295_270,
            "1d36af476bdb8f82a5da62bd8acdabe54cd8de2fa84010d37da5c4890feb447e",
            by_browser=True,
        ),
        HUMAN,
    ),
}
PRODUCTS: Final = 1_000


def survey(data_dir: Path, official_set: OfficialSet) -> Survey:
    """The small set's products are counted too, as they would be played. Raises DataError."""

    def products() -> list[Count]:
        if official_set == "full":  # minutes, and its checksums say more
            return []
        return [Count("products", sum(1 for _ in read_products(find_files(data_dir, official_set))), PRODUCTS)]

    return common.survey(data_dir, SETS[official_set], products)
