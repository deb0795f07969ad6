"""Every setting of a run: type, range, unit, and what 0 or null means. Defaults live in conf/, nowhere else.

Frozen and closed: an unknown key is an error, and so is a knob that the chosen algorithm does not read. The settings of
algorithms are in config/algo.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from empg_cli.config.algo import Algo, SequenceLoss
from empg_cli.config.node import Node

# --- model ---------------------------------------------------------------------------------------


class Architecture(Node):
    """Shape of a from-scratch Qwen2 model; read by `model.init=scratch`."""

    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    mlp_size: PositiveInt

    @model_validator(mode="after")
    def heads_fit(self) -> Architecture:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of num_heads ({self.num_heads})")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        return self


class Model(Node):
    name: str
    init: Literal["packaged", "pretrained", "scratch"]
    """packaged: the weights shipped with empg for this benchmark; pretrained: `path`; scratch: random weights."""
    path: str | None
    """Folder or hub id of a Hugging Face model; read by init=pretrained."""
    prompt: Literal["compact", "chat"]
    """compact: a closed-vocabulary form for tiny models; chat: the model's chat template, think and action tags."""
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool
    """Recompute activations in backward: less memory, about a third more time."""
    arch: Architecture | None
    """Shape of the model, read by init=scratch; null = the shape of the agent that ships for this benchmark."""

    @model_validator(mode="after")
    def init_has_what_it_reads(self) -> Model:
        if self.init == "pretrained" and not self.path:
            raise ValueError("path must name a model folder or hub id when init=pretrained")
        if self.init != "scratch" and self.arch is not None:
            raise ValueError(f"arch is not read when init={self.init}; leave it null, or choose model=tiny-scratch")
        if self.init != "pretrained" and self.path is not None:
            raise ValueError(f"path is not read when init={self.init}; leave it null, or set model.init=pretrained")
        if self.init != "pretrained" and self.prompt == "chat":
            raise ValueError(
                f"prompt must be compact when init={self.init}: only pretrained models have a chat template"
            )
        return self


# --- benchmark -----------------------------------------------------------------------------------


class BenchmarkNode(Node):
    data_dir: str | None
    """Official data; null plays generated data, and every report says so."""
    split: str
    """The split that evaluation plays. Training tasks always come from `train`."""
    eval_tasks: PositiveInt | None
    """The first n tasks of the split; null = all of them, each exactly once."""
    max_steps: int = Field(ge=1, le=200)
    """Model calls in an episode; refused actions count."""
    success_reward: PositiveFloat
    """Reward of a solved task (0 otherwise). verl-agent uses 10."""
    invalid_action_penalty: NonNegativeFloat
    """Subtracted from the reward for every step whose action is invalid; 0 = off."""
    invalid_action_scope: Literal["format", "admissible"]
    """format: only malformed responses are invalid (verl-agent); admissible: refused actions too."""


class Alfworld(BenchmarkNode):
    name: Literal["alfworld"]
    split: Literal["train", "valid_seen", "valid_unseen"]
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


class World(Node):
    """The generated encyclopedia and its questions; not read with official questions and an index of their own."""

    mode: Literal["fictional", "real"]
    """fictional: invented, nothing a language model can know; real: countries, cities, airports, elements."""
    seed: NonNegativeInt
    scale: PositiveFloat
    """Times 6,610 entities; read by mode=fictional, 1 otherwise."""
    train_questions: PositiveInt
    test_questions: PositiveInt
    """Of each kind in each test split."""

    @model_validator(mode="after")
    def scale_belongs_to_fictional(self) -> World:
        if self.mode == "real" and self.scale != 1.0:
            raise ValueError(f"scale is not read when mode=real (got {self.scale}); leave it 1.0")
        return self


class Remote(Node):
    """A service reached over HTTP."""

    timeout_s: PositiveFloat
    """Of one attempt."""
    attempts: PositiveInt
    """Tries of one call in all; waits grow from 0.5 s, or are what the server's Retry-After says."""
    concurrency: PositiveInt
    """Calls in flight."""


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
    urls: Annotated[list[str], Field(min_length=1)]
    """Base addresses, used in turn."""
    dialect: Literal["queries", "query"]
    """queries: a list per request (Search-R1, verl, ASearcher); query: a single one (SkyRL, verl-agent)."""


class OpenSearchRetrieval(Remote):
    """Elasticsearch or OpenSearch, by `_msearch`."""

    engine: Literal["opensearch"]
    url: str
    index: str
    title_field: str
    text_field: str
    title_boost: NonNegativeFloat
    api_key_env: str | None
    """Environment variable that holds the API key (`Authorization: ApiKey`); null = none."""


class QdrantRetrieval(Remote):
    """Qdrant `points/query`, with query vectors from an OpenAI-compatible `/embeddings`."""

    engine: Literal["qdrant"]
    url: str
    collection: str
    title_field: str
    text_field: str
    api_key_env: str | None
    embeddings_url: str
    """Base address, such as http://127.0.0.1:8001/v1."""
    embeddings_model: str
    embeddings_key_env: str | None
    query_prefix: str
    """Put before a query, such as `query: ` for E5."""


class WebRetrieval(Remote):
    engine: Literal["serper", "tavily", "brave", "searxng"]
    base_url: str | None
    """null = the provider's own address; searxng has none and needs one."""
    api_key_env: str | None
    """Environment variable that holds the key; null = none is sent."""
    reader: Literal["jina"] | None
    """Reads the pages that `open` names; null = pages cannot be opened."""
    reader_url: str | None
    """null = the reader's own address."""
    reader_key_env: str | None
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

    base_url: str
    """Such as http://127.0.0.1:8000/v1."""
    model: str
    api_key_env: str | None
    temperature: NonNegativeFloat
    max_tokens: PositiveInt
    max_answer_chars: PositiveInt
    """The judged answer is cut here: a trained policy learns to talk to its judge."""


class FormatShaping(Node):
    """Parts of the reward that go to form, as shares of success_reward; all 0 = off. Needs the transcript's tags."""

    structure: float = Field(ge=0, le=1)
    """Taken from a right answer in a malformed episode, given to a wrong one in a well-formed one (Search-R1: 0.2)."""
    answered: float = Field(ge=0, le=1)
    """Given to a wrong answer in a malformed episode (Search-R1: 0.1)."""
    evidence: float = Field(ge=0, le=1)
    """Added to `structure` of a wrong answer when a gold answer had been found."""
    penalty: float = Field(ge=0, le=1)
    """Subtracted from a malformed episode (DeepResearcher: 1)."""


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
    reward: Literal["em", "f1", "sub_em", "cover_em", "judge"]
    """Value of an answer, times success_reward. judge: exact match, else the judge's verdict."""
    shaping: FormatShaping
    judge: Judge | None
    """Read by reward=judge; null otherwise."""

    @model_validator(mode="after")
    def reward_has_what_it_reads(self) -> Deepsearch:
        if self.reward == "judge" and self.judge is None:
            raise ValueError("judge must be given when reward=judge: +judge@benchmark.judge=openai")
        if self.reward != "judge" and self.judge is not None:
            raise ValueError(f"judge is not read when reward={self.reward}; leave it null")
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


Benchmark = Annotated[Alfworld | Deepsearch, Field(discriminator="name")]


# --- rollout, trainer, logger --------------------------------------------------------------------


class Rollout(Node):
    engine: Literal["torch"]
    context: Literal["window", "transcript"]
    """transcript: append-only, one row per trajectory; window: a new prompt each step with the last `history` pairs."""
    history: NonNegativeInt
    """Observation-action pairs that a window prompt repeats; 0 with transcript, which does not read it."""
    temperature: PositiveFloat
    eval_temperature: NonNegativeFloat
    """0 = greedy."""
    max_new_tokens: PositiveInt
    """Longest response of one step; a longer one is cut and ends there."""
    max_context_tokens: PositiveInt
    """A trajectory whose next prompt would not fit ends with status context_overflow."""

    @model_validator(mode="after")
    def is_consistent(self) -> Rollout:
        if self.context == "transcript" and self.history != 0:
            raise ValueError(
                f"history ({self.history}) is not read when context=transcript; leave it 0, or choose rollout=window"
            )
        if self.max_new_tokens >= self.max_context_tokens:
            raise ValueError(
                f"max_new_tokens ({self.max_new_tokens}) must be below max_context_tokens ({self.max_context_tokens})"
            )
        return self


class WarmStart(Node):
    """Imitation of the expert before RL."""

    steps: NonNegativeInt
    """Optimiser steps; 0 = off."""
    batch_size: PositiveInt
    """Demonstrations in a step, each a new game."""
    lr: PositiveFloat
    mistakes: float = Field(ge=0, le=1)
    """Probability of a random admissible action in a demonstration; the expert recovers. Mistakes never train."""
    prompt_weight: float = Field(ge=0, le=1)
    """Weight of the loss on observation tokens; 0 = actions only."""


class Trainer(Node):
    updates: NonNegativeInt
    tasks_per_update: PositiveInt
    lr: PositiveFloat
    lr_warmup: NonNegativeInt
    """Updates over which the learning rate grows from 0; 0 = none."""
    lr_schedule: Literal["constant", "linear", "cosine"]
    """After the warm-up: constant, or decaying to a tenth at the last update."""
    weight_decay: NonNegativeFloat
    max_grad_norm: PositiveFloat
    epochs: PositiveInt
    """Passes over each rollout batch."""
    minibatches: PositiveInt
    """Optimiser steps in a pass."""
    tokens_per_microbatch: PositiveInt
    """Padded tokens in one forward and backward; changes memory and speed, never the gradient."""
    old_logprobs: Literal["rollout", "recompute"]
    """Take old log-probs and entropies from the sampler, or from a scoring pass of the training model."""
    eval_every: NonNegativeInt
    """Updates between evaluations; 0 = only before and after. An evaluation always ends a run."""
    eval_before: bool
    """Evaluate the initial policy."""
    checkpoint_every: NonNegativeInt
    """Updates between checkpoints; 0 = only at the end."""
    keep_checkpoints: PositiveInt
    device: str = Field(pattern=r"^(auto|cpu|cuda|cuda:\d+)$")
    """auto (cuda when there is one, else cpu), cpu, cuda, cuda:1 ..."""
    threads: NonNegativeInt
    """Torch CPU threads; 0 = leave torch's own choice."""
    warm_start: WarmStart


class Wandb(Node):
    mode: Literal["auto", "online", "offline", "disabled"]
    """auto: online when logged in, else offline; never asks."""
    project: str
    entity: str | None
    group: str | None
    """null = experiment name without the seed."""
    tags: list[str]


class Logger(Node):
    console: Literal["auto", "rich", "plain", "quiet"]
    csv: bool
    wandb: Wandb


class TrainConfig(Node):
    seed: NonNegativeInt
    run_dir: str
    resume: str | None
    """auto: go on from the newest good checkpoint in run_dir if there is one; a path: from there; null: start anew."""
    model: Model
    benchmark: Benchmark
    algo: Algo
    rollout: Rollout
    trainer: Trainer
    logger: Logger

    @model_validator(mode="after")
    def sequence_ratio_sees_whole_trajectories(self) -> TrainConfig:
        loss = self.algo.loss
        if isinstance(loss, SequenceLoss) and loss.sequence == "trajectory" and self.rollout.context != "transcript":
            raise ValueError(
                "algo.loss.sequence=trajectory needs rollout.context=transcript: in a window context the steps of a "
                "trajectory are rows of their own, maybe in different micro-batches; choose algo.loss.sequence=step"
            )
        return self

    @model_validator(mode="after")
    def importance_cap_has_a_second_opinion(self) -> TrainConfig:
        if self.algo.loss.importance_cap is not None and self.trainer.old_logprobs == "rollout":
            raise ValueError(
                "algo.loss.importance_cap is not read when trainer.old_logprobs=rollout: the sampler's log-probs are "
                "the old ones, so every importance weight is 1; set trainer.old_logprobs=recompute, or leave it null"
            )
        return self

    @model_validator(mode="after")
    def minibatches_have_trajectories(self) -> TrainConfig:
        trajectories = self.trainer.tasks_per_update * self.algo.group_size
        if self.trainer.minibatches > trajectories:
            raise ValueError(
                f"trainer.minibatches ({self.trainer.minibatches}) must not exceed the trajectories of an update "
                f"({trajectories} = {self.trainer.tasks_per_update} tasks x group of {self.algo.group_size})"
            )
        return self


class EvalConfig(Node):
    """`empg eval run=DIR`: what is played comes from the run's own config unless it is given here."""

    run: str | None
    """A run folder or a checkpoint folder; null evaluates `policy` on the composed benchmark."""
    policy: Literal["model", "expert"]
    seed: NonNegativeInt
    run_dir: str
    model: Model
    benchmark: Benchmark
    rollout: Rollout
    trainer: Trainer
    logger: Logger
