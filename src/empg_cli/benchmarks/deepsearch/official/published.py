"""DeepResearcher's questions as its authors publish them, in `data/` of github.com/GAIR-NLP/DeepResearcher.

Addresses name a commit, so that they always lead to the same bytes. Sizes and checksums are those of that commit;
of the training file neither is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from empg_cli.benchmarks import published as common
from empg_cli.benchmarks.deepsearch.official.questions import load_questions
from empg_cli.benchmarks.published import Count, PublishedFile, Survey

_COMMIT: Final = "c93be8fd8637c1ac4a438ce730d118afd308f832"
_DATA: Final = f"https://raw.githubusercontent.com/GAIR-NLP/DeepResearcher/{_COMMIT}/data"
FILES: Final = (
    PublishedFile(
        "test.parquet",
        f"{_DATA}/test.parquet",
        "questions of seven sources",
        611_936,
        "30c21c7da1872af08d7db1aacb5f45a57d0a7f038dd7f7baed51231bf6c5e10e",
    ),
    PublishedFile(
        "dev.parquet",
        f"{_DATA}/dev.parquet",
        "questions to choose by",
        146_276,
        "43321626d8f20bb28c87db21615e76cca6df813d6047ab4d235de683c3726112",
    ),
    PublishedFile("train.parquet", f"{_DATA}/train.parquet", "questions to train on", is_needed=False),
)
OFFICIAL: Final[Mapping[str, int]] = {"test": 3197, "dev": 875}


def survey(data_dir: Path) -> Survey:
    """Questions by split. Raises DataError."""

    def questions() -> list[Count]:
        found = {split: len(load_questions(data_dir / f"{split}.parquet", split, source=split)) for split in OFFICIAL}
        return [Count(f"questions in {split}", found[split], number) for split, number in OFFICIAL.items()]

    return common.survey(data_dir, FILES, questions)
