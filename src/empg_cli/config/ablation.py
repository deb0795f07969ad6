"""The settings of `empg ablate`: variants as lists of Hydra overrides, and the seeds of the study."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from empg_cli.config.node import Node
from empg_cli.config.schema import TrainConfig

FolderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


class Tuning(Node):
    """Random search before a comparison: every variant is played as it is and with the same drawn settings."""

    draws: PositiveInt
    """Settings drawn from `space`, no two alike; values of a key take turns, so that none is drawn much oftener."""
    seed: NonNegativeInt
    """Of the draws. More draws with the same seed are those of before and new ones."""
    space: dict[str, Annotated[list[float | int | bool | str | None], Field(min_length=1)]] = Field(min_length=1)
    """Key -> the values it is drawn from."""

    @model_validator(mode="after")
    def values_are_distinct(self) -> Self:
        for key, values in self.space.items():
            if len({(type(value), value) for value in values}) < len(values):
                raise ValueError(f"space must name each value of {key} once, got {values}")
        return self

    @model_validator(mode="after")
    def there_are_as_many(self) -> Self:
        if self.draws > self.size:
            raise ValueError(f"draws must be at most {self.size}, which is all that space holds, got {self.draws}")
        return self

    @property
    def size(self) -> int:
        """Settings that can be drawn."""
        return math.prod(len(values) for values in self.space.values())


class Ablation(Node):
    name: FolderName
    """Names the study's folder and its tables."""
    metric: str
    """A name of docs/metrics.md; its value in the last row of a run that has it is compared, never the best one."""
    base: FolderName
    """The variant that the others are compared with."""
    mixed: Literal["refuse", "mark"]
    """Cells that other code, packages, data or weights made. refuse: none is added, and no table compares them; mark:
    every table says so above its numbers, and differences leave out the seeds whose cells are unlike."""
    tuning: Tuning | None
    """Plays drawn settings of every variant instead of the variant alone; null = off."""
    confirms: str | None
    """Folder of a finished study with `tuning`: the variants are played with what did best there, on seeds that tuned
    nothing (`seeds=n`: n of them). null = off."""
    variants: dict[FolderName, list[str]] = Field(min_length=1)
    """Name -> Hydra overrides, laid over those of the command line."""

    @model_validator(mode="after")
    def tuning_or_confirming(self) -> Self:
        if self.confirms is not None and self.tuning is not None:
            raise ValueError(
                "tuning must be null beside confirms: winners are played as they are (ablation.tuning=null)"
            )
        return self

    @model_validator(mode="after")
    def base_is_a_variant(self) -> Self:
        if self.base not in self.variants:
            raise ValueError(f"base ({self.base}) must be one of the variants: {', '.join(self.variants)}")
        return self


class StudySettings(Node):
    ablation: Ablation
    seeds: PositiveInt | Annotated[list[NonNegativeInt], Field(min_length=1)]
    """A number n stands for the seeds 0 to n-1."""

    @model_validator(mode="after")
    def seeds_are_distinct(self) -> Self:
        if isinstance(self.seeds, list) and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must be distinct: a seed that stands twice is the same run")
        return self

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)


class AblateConfig(TrainConfig):
    """One cell as it is composed: a training configuration beside the study's own keys."""

    run_dir: str
    """The study's folder, with a run folder for each cell. A digest of the settings is put behind the default."""
    ablation: Ablation
    seeds: PositiveInt | list[NonNegativeInt]
    """A number n stands for the seeds 0 to n-1; a list names them."""

    def training(self) -> TrainConfig:
        return TrainConfig.model_validate(self.model_dump(exclude={"ablation", "seeds"}))
