"""The settings of Deep Search: its world, its retrieval, its rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from empg_cli.config.node import BenchmarkNode, Node
from empg_cli.config.service import Address, Remote


class World(Node):
    """The generated encyclopedia and its questions; not read with official questions and an index of their own."""

    mode: Literal["fictional", "real"]
    """fictional: invented, nothing a language model can know; real: countries, cities, airports, elements."""
    seed: NonNegativeInt
    """Another seed is another world."""
    scale: PositiveFloat
    """Times 6,610 entities; read by mode=fictional, 1 otherwise."""
    train_questions: PositiveInt
    """Questions of the train split."""
    test_questions: PositiveInt
    """Of each kind in each test split."""

    @model_validator(mode="after")
    def scale_belongs_to_fictional(self) -> World:
        if self.mode == "real" and self.scale != 1.0:
            raise ValueError(f"scale is not read when mode=real (got {self.scale}); leave it 1.0")
        return self


class EmbeddedRetrieval(Node):
    engine: Literal["tantivy", "bm25s"]
    index_dir: str | None
    """Folder made by `empg data index deepsearch`; null = the generated world's own index."""


class DenseRetrieval(Node):
    engine: Literal["dense"]
    index_dir: str
    """Folder made by `empg data index deepsearch --engine dense`; it remembers its encoder."""
    device: str = Field(pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    """Where queries are encoded."""


class HttpRetrieval(Remote):
    """A server that speaks Search-R1's `/retrieve`, such as `empg data serve deepsearch`."""

    engine: Literal["http"]
    urls: Annotated[list[Address], Field(min_length=1)]
    """Base addresses, used in turn."""
    dialect: Literal["queries", "query"]
    """queries: a list per request (Search-R1, verl, ASearcher); query: a single one (SkyRL, verl-agent)."""


class OpenSearchRetrieval(Remote):
    """Elasticsearch or OpenSearch, by `_msearch`."""

    engine: Literal["opensearch"]
    url: Address
    """Such as http://127.0.0.1:9200."""
    index: str
    """As the server calls it."""
    title_field: str
    """Field that holds a passage's title."""
    text_field: str
    """Field that holds its text."""
    title_boost: NonNegativeFloat
    """Weight of a match in the title; a match in the text counts 1."""
    api_key_env: str | None
    """Environment variable that holds the API key (`Authorization: ApiKey`); null = none."""


class QdrantRetrieval(Remote):
    """Qdrant `points/query`, with query vectors from an OpenAI-compatible `/embeddings`."""

    engine: Literal["qdrant"]
    url: Address
    """Such as http://127.0.0.1:6333."""
    collection: str
    """As the server calls it."""
    title_field: str
    """Key of the payload that holds a passage's title."""
    text_field: str
    """Key of the payload that holds its text."""
    api_key_env: str | None
    """Environment variable that holds Qdrant's key; null = none is sent."""
    embeddings_url: Address
    """Base address, such as http://127.0.0.1:8001/v1."""
    embeddings_model: str
    """As the server of embeddings calls it."""
    embeddings_key_env: str | None
    """Environment variable that holds the key of that server; null = none is sent."""
    query_prefix: str
    """Put before a query, such as `query: ` for E5."""


class WebRetrieval(Remote):
    engine: Literal["serper", "tavily", "brave", "searxng"]
    base_url: Address | None
    """null = the provider's own address; searxng has none and needs one."""
    api_key_env: str | None
    """Environment variable that holds the key; null = none is sent."""
    reader: Literal["jina"] | None
    """Reads the pages that `open` names; null = pages cannot be opened."""
    reader_url: Address | None
    """null = the reader's own address."""
    reader_key_env: str | None
    """Environment variable that holds the reader's key; null = none is sent."""
    mode: Literal["live", "record", "replay"]
    """live: always ask; record: ask once and keep the answer in `cache`; replay: answer from `cache` only."""
    cache: str | None
    """SQLite file; read by record and replay."""
    requests_per_second: PositiveFloat | None
    """null = no limit of our own."""
    max_calls: PositiveInt | None
    """Hard budget of calls sent; null = none. When it is spent, episodes that still search end unscored."""
    usd_per_call: NonNegativeFloat
    """For the cost counter."""
    blocked_domains: list[str]
    """Hits from these hosts are dropped (sites that host the questions)."""

    @model_validator(mode="after")
    def has_what_it_reads(self) -> WebRetrieval:
        if self.mode == "live" and self.cache is not None:
            raise ValueError("cache is not read when mode=live; leave it null, or choose mode=record")
        if self.mode != "live" and self.cache is None:
            raise ValueError(f"cache must name a file when mode={self.mode}")
        if self.engine == "searxng" and self.base_url is None:
            raise ValueError("base_url must be given when engine=searxng, for instance http://127.0.0.1:8080")
        if self.reader is None and (self.reader_url or self.reader_key_env):
            raise ValueError("reader must be given when reader_url or reader_key_env is")
        return self


Retrieval = EmbeddedRetrieval | DenseRetrieval | HttpRetrieval | OpenSearchRetrieval | QdrantRetrieval | WebRetrieval


class Judge(Remote):
    """A language model that compares answers, behind an OpenAI-compatible `/chat/completions`."""

    base_url: Address
    """Such as http://127.0.0.1:8000/v1."""
    model: str
    """As the server calls it."""
    api_key_env: str | None
    """Environment variable that holds the key; null = none is sent."""
    temperature: NonNegativeFloat
    """0 = greedy: the same verdict each time, as far as the server is deterministic."""
    max_tokens: PositiveInt
    """Longest verdict."""
    max_answer_chars: PositiveInt
    """The judged answer is cut here: a trained policy learns to talk to its judge."""


class FormatShaping(Node):
    """Parts of the reward that go to form, as shares of success_reward; all 0 = off. All but `penalty` need tags:
    action_form=tag or rules=search_r1."""

    structure: float = Field(ge=0, le=1)
    """Taken from a right answer in a malformed episode, given to a wrong one in a well-formed one (Search-R1: 0.2)."""
    answered: float = Field(ge=0, le=1)
    """Given to a wrong answer in a malformed episode (Search-R1: 0.1)."""
    evidence: float = Field(ge=0, le=1)
    """Added to `structure` of a wrong answer when a gold answer had been found."""
    penalty: float = Field(ge=0, le=1)
    """Subtracted from a malformed episode (DeepResearcher: 1)."""


OUT_OF_DISTRIBUTION: Final = ("ood_composition", "ood_depth3", "ood_depth4", "ood_intersection")
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "test": ("id", "ood", *OUT_OF_DISTRIBUTION),
    "ood": OUT_OF_DISTRIBUTION,
}
"""Split -> those that it holds; in official data without `test` those are of `dev`."""


class Deepsearch(BenchmarkNode):
    name: Literal["deepsearch"]
    split: Literal[
        "train", "dev", "test", "id", "ood", "ood_composition", "ood_depth3", "ood_depth4", "ood_intersection"
    ]
    """test = id and ood, as in the paper's Table 2; ood_...: parts of the generated world; dev: official data."""
    world: World
    retrieval: Annotated[Retrieval, Field(discriminator="engine")]
    cache_dir: str | None
    """Generated worlds and their indexes; null = $XDG_CACHE_HOME/empg, else ~/.cache/empg."""
    last_turn: Literal["any", "answer"]
    """answer: the last of max_steps calls may only answer (Search-R1); any: it may search in vain (verl-agent)."""
    top_k: int = Field(ge=1, le=100)
    """Documents that a search shows."""
    snippet_words: NonNegativeInt
    """Words shown of each document; 0 = all of it."""
    open_tool: bool
    """Documents show an id, and open[id] gives the whole page."""
    max_observation_chars: int = Field(ge=100)
    """A longer observation is cut, and counted."""
    action_form: Literal["any", "tag", "react", "json"]
    """<search>..</search> (Search-R1), search[..] (ReAct), JSON tool calls; any: whichever comes."""
    rules: Literal["ours", "search_r1", "verl_agent"]
    """Whose rules read a response: which action, what of it stays, what is malformed (table in docs/deepsearch.md). The
    others read tags only, so action_form must be any or tag."""
    reward: Literal["em", "f1", "sub_em", "cover_em", "judge"]
    """Value of an answer, times success_reward. judge: exact match, else the judge's verdict."""
    shaping: FormatShaping
    judge: Judge | None
    """Read by reward=judge; null otherwise."""
    expert_haste: float = Field(ge=0, le=1)
    """Share of the expert's episodes that end one look-up too early: demonstrations of mixed quality."""

    @model_validator(mode="after")
    def reward_has_what_it_reads(self) -> Deepsearch:
        if self.reward == "judge" and self.judge is None:
            raise ValueError("judge must be given when reward=judge: +judge@benchmark.judge=openai")
        if self.reward != "judge" and self.judge is not None:
            raise ValueError(f"judge is not read when reward={self.reward}; leave it null")
        return self

    @model_validator(mode="after")
    def rules_fit_the_other_settings(self) -> Deepsearch:
        if self.rules == "ours":
            return self
        if self.action_form not in ("any", "tag"):
            raise ValueError(f"action_form ({self.action_form}) is not read when rules={self.rules}; leave it any")
        if self.open_tool:
            raise ValueError(f"open_tool must be false when rules={self.rules}: it knows search and answer only")
        return self

    @model_validator(mode="after")
    def shaping_has_what_it_reads(self) -> Deepsearch:
        form = self.shaping
        if self.rules == "verl_agent" and any(form.model_dump().values()):
            raise ValueError("shaping is not read when rules=verl_agent: it has no format reward; leave it 0")
        needs_tags = {name: value for name, value in form.model_dump().items() if value and name != "penalty"}
        if self.rules == "ours" and self.action_form != "tag" and needs_tags:
            name, value = next(iter(needs_tags.items()))
            raise ValueError(f"shaping.{name} ({value}) judges tags: set action_form=tag, or rules=search_r1")
        return self

    @model_validator(mode="after")
    def open_tool_has_a_reader(self) -> Deepsearch:
        if self.open_tool and isinstance(self.retrieval, WebRetrieval) and self.retrieval.reader is None:
            raise ValueError("open_tool needs a reader on the web: benchmark.retrieval.reader=jina")
        return self

    @model_validator(mode="after")
    def a_search_comes_before_the_last_turn(self) -> Deepsearch:
        if self.last_turn == "answer" and self.max_steps < 2:
            raise ValueError("max_steps must be at least 2 when last_turn=answer")
        return self
