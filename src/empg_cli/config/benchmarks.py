"""The settings of the benchmarks, told apart by their name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from empg_cli.config.deepsearch import Deepsearch
from empg_cli.config.node import BenchmarkNode, Brought


class Alfworld(BenchmarkNode):
    name: Literal["alfworld"]
    split: Literal["train", "valid_seen", "valid_unseen"]
    """The split that evaluation plays. Training tasks always come from `train`."""
    task_types: Annotated[
        list[
            Literal[
                "pick_and_place_simple",
                "look_at_obj_in_light",
                "pick_clean_then_place_in_recep",
                "pick_heat_then_place_in_recep",
                "pick_cool_then_place_in_recep",
                "pick_two_obj_and_place",
            ]
        ],
        Field(min_length=1),
    ]
    """Task types to play, in training and evaluation."""
    train_games: PositiveInt
    """Generated games in the train split; official data brings its own count."""
    game_seed: NonNegativeInt
    """Seed of the generated games."""


class Webshop(BenchmarkNode):
    name: Literal["webshop"]
    official_set: Literal["small", "full"]
    """Which files of data_dir to read: the 1,000 products that published RL results use, or all 1.18 million.
    Not read when data_dir is null or a compiled catalogue."""
    num_products: int = Field(ge=10)
    """Products of the generated shop; official data brings its own count."""
    shop_seed: NonNegativeInt
    """Seed of the generated products."""
    price_seed: NonNegativeInt
    """Seed of prices and price ceilings, which the official server draws anew at each start."""
    goals: Literal["synthetic", "human"]
    """Instructions from a template, one per combination of options, or written by people."""
    split_scheme: Literal["paper", "verl", "by_product"]
    """paper: test 0-500, eval 500-1500, train the rest; verl: test 0-500, train the rest; by_product: no product in two
    splits."""
    split: Literal["train", "eval", "test"]
    """The split that evaluation plays. Training tasks always come from `train`."""
    nouns: Literal["auto", "spacy", "words"]
    """Finds the nouns of titles for the reward; auto: spaCy for official data if it is installed, else word lists."""
    observation: Literal["text", "text_rich"]
    """text: WebShop's usual one-line form; text_rich: a line per element, buttons and chosen options marked."""
    show_attributes: bool
    """Give items a sub-page with the attributes that the reward compares; off in published results."""
    reward: Literal["success", "score"]
    """success: success_reward for a score of 1, else 0; score: the score, 0 to 1 (success_reward is not read)."""
    expert: Literal["shopper", "goal"]
    """Who demonstrates, hints and plays `empg eval policy=expert`: a shopper that decides by what an agent sees, or one
    that knows the product that is wanted (the ceiling of what can be reached)."""

    @model_validator(mode="after")
    def split_is_of_the_scheme(self) -> Webshop:
        if self.split == "eval" and self.split_scheme == "verl":
            raise ValueError("split must be train or test when split_scheme=verl")
        return self


OURS = ("alfworld", "webshop", "deepsearch")


class CustomBenchmark(BenchmarkNode, Brought):
    """From outside the package; docs/adding-a-benchmark.md."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names runs and the family of its metrics."""

    @field_validator("name")
    @classmethod
    def name_is_free(cls, name: str) -> str:
        if name in OURS:
            raise ValueError(f"{name} is a benchmark of empg's own; give another name")
        return name


def name(node: Any) -> str | None:
    """What tells benchmarks apart: a target, whatever its name is, or the name."""
    values = node.model_dump() if isinstance(node, BaseModel) else node
    if not isinstance(values, dict):
        return None
    return "custom" if "target" in values else values.get("name")


Benchmark = Annotated[
    Annotated[Alfworld, Tag("alfworld")]
    | Annotated[Webshop, Tag("webshop")]
    | Annotated[Deepsearch, Tag("deepsearch")]
    | Annotated[CustomBenchmark, Tag("custom")],
    Field(discriminator=Discriminator(name)),
]
