"""How much memory each phase of a run takes, counted from the shape of the model and what the code keeps.

What is counted: numbers that autograd saves for a layer of Llama's kind (found by its hooks, and held by a test), the
tensors beside them at the moment of the peak, keys and values of all columns of all episodes at once. An episode that
ends early takes less, so a rollout's number is a bound; what is trained is met within a few per cent
(docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from empg_cli.planning.job import Job, Spread

PROCESS = {"cpu": 480_000_000, "cuda": 1_000_000_000}
"""Python, torch, transformers, benchmark; on a GPU the CUDA context, workspaces and what the allocator wastes."""
HOST_PROCESS = 1_500_000_000
"""Of the process around a GPU, whose CUDA libraries are larger."""

# What the code allows itself; a test compares each with its place.
CHUNK_BYTES, CPU_CHUNK, KEEP_BYTES = 2**28, 256, 2**25  # model.scoring
MASK_ELEMENTS = 2**22  # model.packed_attention
TOKENS_AT_ONCE = 2048  # rollout.torch_engine.reader
LOGITS_OF_A_DRAW = 5
"""[episodes, vocabulary] in float32 that exist while tokens are drawn: logits, log-probs, probabilities, their sums,
and one that a product leaves."""


WHOLE = "whole weights"
"""Of a spread model, in the compute type, to play with, or through an optimiser step where they are not freed."""
SERVERS = "servers of vLLM"


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    """As in docs/performance.md: load, rollout, score, update, save."""
    items: Mapping[str, int]
    """What is in memory -> bytes."""

    @property
    def total(self) -> int:
        return sum(self.items.values())


def phases(job: Job) -> list[Phase]:
    """The peak of each phase of a run that has taken its first optimiser step; only that of playing where nothing is
    trained."""
    kept = standing(job)
    served = {SERVERS: job.served_bytes} if job.served_bytes else {}
    if not job.train_episodes:
        return [Phase("load", loading(job)), Phase("rollout", kept | served | playing(job))]
    optimiser = {"optimiser state": int(2 * job.trained * job.moment_bytes) // job.spread.shard}
    gradients = {"gradients": _gradients(job)}
    scores = job.has_reference or job.recomputes
    awake = {} if job.servers_sleep else served
    read = kept | awake | _gathered(job)
    return [
        Phase("load", loading(job)),
        Phase("rollout", kept | served | optimiser | playing(job)),
        *([Phase("score", read | optimiser | {"activations": scoring(job)})] if scores else []),
        Phase("update", read | optimiser | gradients | {"activations": learning(job)}),
        Phase("save", kept | awake | optimiser),
    ]


def _gradients(job: Job) -> int:
    """Of several ranks each holds its part of the sum, and what its own passes have added up until it is summed: in
    float32 as a whole, or layer by layer."""
    if job.spread.is_one:
        return job.trained * job.param_bytes
    share = job.trained * job.param_bytes // job.spread.shard
    return share + (_of_two_layers(job, 4) if job.spread.frees else 4 * job.trained)


def _gathered(job: Job) -> dict[str, int]:
    """In the place of the whole weights, where they are gathered layer by layer: the one that is computed, and the
    next."""
    if job.spread.is_one or not job.spread.frees:
        return {}
    return {WHOLE: _of_two_layers(job, job.dtype_bytes)}


def _of_two_layers(job: Job, size: int) -> int:
    """Beside what lies outside of layers: embeddings and head."""
    shape = job.shape
    outside = shape.parameters - shape.layers * shape.layer_parameters
    return size * (outside + 2 * shape.layer_parameters)


def peak(job: Job) -> Phase:
    return max(phases(job), key=lambda phase: phase.total)


def standing(job: Job) -> dict[str, int]:
    """What is in memory in every phase after loading."""
    numbers = job.shape.parameters
    if job.has_adapter:  # the reference is the same weights without it
        adapter = job.adapter.numbers * (
            job.param_bytes + (job.dtype_bytes if job.dtype_bytes != job.param_bytes else 0)
        )
        return {"process": PROCESS[job.device], "weights": numbers * job.dtype_bytes, "adapter": adapter}
    spread = job.spread
    items = {"process": PROCESS[job.device], "weights": numbers * job.param_bytes // spread.shard}
    if not spread.is_one:
        if job.plays or not spread.frees:
            items[WHOLE] = numbers * job.dtype_bytes
    elif job.is_mixed:
        items["copies to compute with"] = numbers * job.dtype_bytes
    if job.has_reference:  # a spread one stays whole after its first pass, unless layers are freed
        parts = numbers * job.dtype_bytes // spread.shard
        items["reference model"] = parts if spread.frees or spread.is_one else parts + numbers * job.dtype_bytes
    return items


def loading(job: Job) -> dict[str, int]:
    """The file is mapped, and what is read of it the system can drop again, so it does not count: the resident memory
    of a process is higher by it for a moment. Every rank reads the whole weights before it keeps its part."""
    return standing(job if job.spread.is_one else replace(job, spread=Spread()))


def host_loading(job: Job) -> int:
    """Bytes of the machine around a GPU: it reads the weights before they move."""
    return HOST_PROCESS + job.shape.parameters * (job.dtype_bytes if job.has_adapter else job.param_bytes)


def cache_bytes_of_an_episode(job: Job) -> int:
    """Keys and values of all its columns in all layers."""
    return 2 * job.shape.layers * job.shape.key_width * job.context * job.dtype_bytes


def playing(job: Job) -> dict[str, int]:
    assert job.concurrent is not None, "settled before it is asked for"
    if not job.plays:
        return {}
    return {
        "keys and values": job.concurrent * cache_bytes_of_an_episode(job),
        "activations": job.concurrent * bytes_beside_an_episode(job) + reading(job),
    }


def bytes_beside_an_episode(job: Job) -> int:
    """Of a layer whose cache grows, the old one; on a GPU the keys and values of a layer, repeated for its query heads;
    logits while a token is drawn."""
    shape = job.shape
    larger = cache_bytes_of_an_episode(job) // (2 * shape.layers)
    if job.device == "cuda":
        larger = max(larger, 2 * shape.query_width * job.context * job.dtype_bytes)
    return larger + LOGITS_OF_A_DRAW * 4 * shape.vocabulary


def reading(job: Job) -> int:
    """A pass over prompts: activations of a layer, and the masks of chunks that come after others."""
    tokens = max(TOKENS_AT_ONCE, job.context)
    return tokens * _passing(job) + tokens * job.context * (1 + 2 * job.dtype_bytes)


def scoring(job: Job) -> int:
    tokens = min(max(job.microbatch or 0, job.context), job.train_episodes * job.context * job.max_steps)
    return tokens * _passing(job) + _chosen_mask(job, tokens) + _head(job, int(tokens * job.sampled_share))


def learning(job: Job) -> int:
    """The peak of a forward and backward pass, weights, their sums of gradients and the optimiser apart.

    It lies at the head, when all layers have saved what they need; or in the backward pass of a layer; or at its end,
    where the gradient of the embedding meets that of the head.
    """
    shape, tokens = job.shape, job.row_tokens
    wanted = max(1, int(tokens * job.sampled_share))
    layer, last = layer_saves(job, tokens), last_layer_saves(job, tokens, wanted)
    # Of the head's weight, in float32 whatever the type; beside an adapter it is frozen.
    head_gradient = 0 if job.has_adapter else 4 * shape.embedding
    head = _head(job, wanted) + head_gradient
    kept_by_tying = head_gradient if shape.is_tied else 0  # until the gradient of the embedding joins it
    behind = _backward_of_a_layer(job, tokens)
    if job.has_checkpointing:
        inputs = shape.layers * tokens * shape.hidden * job.dtype_bytes
        within = inputs + max(last + head, layer + behind + kept_by_tying)
    else:
        within = (shape.layers - 1) * layer + max(last + head, behind + kept_by_tying)
    at_the_end = 0 if job.has_adapter else kept_by_tying + 2 * shape.embedding * job.dtype_bytes
    return max(within + _chosen_mask(job, tokens), at_the_end)


def layer_saves(job: Job, tokens: int) -> int:
    """Bytes that a layer's forward pass keeps for its backward pass.

    Attention keeps its queries, keys, values and result with the log-sum-exp; the MLP gate, activation and up; norms
    what comes in; products what comes in (`_inputs`).
    """
    shape, size = job.shape, job.dtype_bytes
    each = 2 * _norm_saves(job) * shape.hidden + 4 * (shape.heads + 2)
    each += size * (2 * shape.query_width + 2 * shape.key_width + 3 * shape.mlp)
    each += _inputs(job, QUERIES + KEYS, shape.hidden) + _inputs(job, OUTPUT, shape.query_width, is_kept=True)
    each += _inputs(job, WIDE, shape.hidden) + _inputs(job, NARROW, shape.mlp)
    return tokens * (each + _head_norm_saves(job) * (shape.query_width + shape.key_width))


def last_layer_saves(job: Job, tokens: int, wanted: int) -> int:
    """Of standard layers it is computed for the tokens wanted alone, but for its keys and values."""
    shape, size = job.shape, job.dtype_bytes
    if not shape.is_standard:
        return layer_saves(job, tokens)
    norm, head_norm = _norm_saves(job), _head_norm_saves(job)
    for_all = norm * shape.hidden + (2 * size + head_norm) * shape.key_width + _inputs(job, KEYS, shape.hidden)
    for_wanted = norm * shape.hidden + (4 * size + head_norm) * shape.query_width + 3 * size * shape.mlp
    for_wanted += _inputs(job, QUERIES, shape.hidden) + _inputs(job, OUTPUT, shape.query_width, is_kept=True)
    for_wanted += _inputs(job, WIDE, shape.hidden) + _inputs(job, NARROW, shape.mlp)
    return tokens * for_all + wanted * for_wanted


QUERIES, KEYS, OUTPUT = ("q_proj",), ("k_proj", "v_proj"), ("o_proj",)
WIDE, NARROW = ("gate_proj", "up_proj"), ("down_proj",)
"""Linear layers that read the same."""


def _inputs(job: Job, layers: tuple[str, ...], width: int, *, is_kept: bool = False) -> int:
    """Bytes of a token that linear layers keep of what they read, for the gradients of their weights. Frozen ones keep
    nothing; peft casts what an adapter of another type reads, for each anew.

    Args:
        is_kept: somebody else keeps it.
    """
    if not job.has_adapter:
        return 0 if is_kept else job.dtype_bytes * width
    adapted = len(job.adapter.layers.intersection(layers))
    if job.param_bytes != job.dtype_bytes:
        return adapted * job.param_bytes * width
    return 0 if is_kept or not adapted else job.dtype_bytes * width


def _norm_saves(job: Job) -> int:
    """Bytes of a norm a number. On a GPU one kernel keeps what comes in; on a CPU torch keeps that in float32 and, for
    the gradient of its weight, what is normalised."""
    if job.device == "cuda":
        return job.dtype_bytes
    return 4 if job.has_adapter else 8


def _head_norm_saves(job: Job) -> int:
    """The same of a norm of queries and keys."""
    return _norm_saves(job) if job.shape.has_qk_norm else 0


def _passing(job: Job) -> int:
    """Bytes of a token on its way through a layer of which nothing is kept."""
    return job.dtype_bytes * (3 * job.shape.mlp + 3 * job.shape.hidden)


def _backward_of_a_layer(job: Job, tokens: int) -> int:
    """Gradients beside what is saved: of the MLP's three wide results and of the stream, as the first is freed."""
    return tokens * job.dtype_bytes * (2 * job.shape.mlp + 3 * job.shape.hidden)


def _chosen_mask(job: Job, tokens: int) -> int:
    """Of the last layer's chosen queries, boolean and as the kernel reads it."""
    if not job.shape.is_standard:
        return 0
    elements = int(tokens * job.context * job.sampled_share)
    return min(elements, MASK_ELEMENTS) * (1 + job.dtype_bytes)


def _head(job: Job, wanted: int) -> int:
    """Logits of a chunk and one more tensor of their size; a short vocabulary's are kept for all."""
    vocabulary = 4 * job.shape.vocabulary
    chunk = max(1, CHUNK_BYTES // vocabulary)
    if job.device == "cpu":
        chunk = min(chunk, CPU_CHUNK)
    chunk = min(chunk, wanted)
    kept = wanted * vocabulary if wanted * vocabulary <= KEEP_BYTES else 0
    product = chunk * job.shape.vocabulary * job.dtype_bytes if job.dtype_bytes < 4 else 0
    return 2 * chunk * vocabulary + product + kept
