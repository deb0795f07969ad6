"""The shape of a model, known without its weights and without network: from a table, or from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from empg_cli.config.schema import Model
from empg_cli.errors import DataError
from empg_cli.reading.streams import read_json


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with gated MLPs, as Llama, Qwen2, Qwen3 and their kin are built."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    is_tied: bool
    """Input and output embedding are one matrix."""
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    is_standard: bool = True
    """Its last layer is computed for the tokens that are asked for alone (`model.decoder`)."""

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Of the keys, and of the values, of a token in a layer."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Numbers in the output embedding."""
        return self.vocabulary * self.hidden

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Name -> inputs and outputs of the linear layers of a decoder layer."""
        return {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.key_width),
            "v_proj": (self.hidden, self.key_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.mlp),
            "up_proj": (self.hidden, self.mlp),
            "down_proj": (self.mlp, self.hidden),
        }

    @property
    def layer_parameters(self) -> int:
        matrices = sum(inputs * outputs for inputs, outputs in self.linear_layers.values())
        biases = self.query_width + 2 * self.key_width if self.has_qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.has_qk_norm else 0)
        return matrices + biases + norms

    @property
    def parameters(self) -> int:
        return (1 if self.is_tied else 2) * self.embedding + self.layers * self.layer_parameters + self.hidden


def _qwen2(hidden: int, layers: int, heads: int, mlp: int, *, kv_heads: int, vocabulary: int, is_tied: bool) -> Shape:
    dim = hidden // heads
    return Shape(vocabulary, hidden, layers, heads, kv_heads, dim, mlp, is_tied, has_qkv_bias=True)


def _qwen3(hidden: int, layers: int, heads: int, mlp: int, *, is_tied: bool) -> Shape:
    return Shape(151_936, hidden, layers, heads, 8, 128, mlp, is_tied, has_qk_norm=True)


KNOWN: Mapping[str, Shape] = {
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(896, 24, 14, 4864, kv_heads=2, vocabulary=151_936, is_tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen2(1536, 28, 12, 8960, kv_heads=2, vocabulary=151_936, is_tied=True),
    "Qwen/Qwen2.5-7B-Instruct": _qwen2(3584, 28, 28, 18_944, kv_heads=4, vocabulary=152_064, is_tied=False),
    "Qwen/Qwen2.5-32B-Instruct": _qwen2(5120, 64, 40, 27_648, kv_heads=8, vocabulary=152_064, is_tied=False),
    "Qwen/Qwen3-0.6B": _qwen3(1024, 28, 16, 3072, is_tied=True),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 28, 16, 6144, is_tied=True),
    "Qwen/Qwen3-4B": _qwen3(2560, 36, 32, 9728, is_tied=True),
    "Qwen/Qwen3-8B": _qwen3(4096, 36, 32, 12_288, is_tied=False),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(128_256, 4096, 32, 32, 8, 128, 14_336, is_tied=False),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(128_256, 2048, 16, 32, 8, 64, 8192, is_tied=True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Shape(49_152, 576, 30, 9, 3, 64, 1536, is_tied=True),
}
"""Hub id -> what the model's public config.json says."""

STANDARD = ("llama", "qwen2", "qwen3")
"""Types whose layers `model.decoder` knows, where all of them have full attention."""
GATED = (*STANDARD, "mistral", "gemma", "phi3", "olmo2", "granite", "smollm3", "cohere", "ernie4_5")
"""Types that are built like `Shape`, up to norms."""


def shape_of(model: Model, benchmark: str) -> Shape | None:
    """The shape of what a config names; None where nobody here knows it: a hub id that is neither in the table nor kept
    on this machine, or a type that is built otherwise."""
    match model.init:
        case "packaged":
            return _from_folder(shipped_agent(benchmark))
        case "scratch":
            # The vocabulary is that of the benchmark's words, which is the shipped agent's.
            shipped = _from_folder(shipped_agent(benchmark))
            if model.arch is None or shipped is None:
                return shipped
            arch = model.arch
            dim = arch.hidden_size // arch.num_heads
            return Shape(
                shipped.vocabulary,
                arch.hidden_size,
                arch.num_layers,
                arch.num_heads,
                arch.num_kv_heads,
                dim,
                arch.mlp_size,
                is_tied=True,
                has_qkv_bias=True,
            )
        case "pretrained":
            assert model.path is not None, "checked by the schema"
            folder = Path(model.path).expanduser()
            if not folder.is_dir():
                return KNOWN.get(model.path) or _from_hub_cache(model.path)
            return _from_folder(folder)


def shipped_agent(benchmark: str) -> Path:
    """Folder of the tiny agent that ships with empg for a benchmark; it may not be there."""
    return Path(str(files("empg_cli") / "assets" / f"tiny-{benchmark}"))


def _from_hub_cache(name: str) -> Shape | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return _from_folder(Path(found).parent) if isinstance(found, str) else None


def _from_folder(folder: Path) -> Shape | None:
    """None also where the file is missing or damaged: loading the model says what is wrong with it."""
    try:
        return shape_of_config(read_json(folder / "config.json"))
    except (OSError, DataError):
        return None


def shape_of_config(config: Mapping[str, Any]) -> Shape | None:
    """From the keys of a Hugging Face config.json; None for types that are built otherwise."""
    try:
        kind = config.get("model_type")
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        kinds = set(config.get("layer_types") or ["full_attention"])
        shape = Shape(
            vocabulary=int(config["vocab_size"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            mlp=int(config["intermediate_size"]),
            is_tied=bool(config.get("tie_word_embeddings", kind in ("gemma", "cohere"))),
            has_qkv_bias=bool(config.get("attention_bias", kind == "qwen2")),
            has_qk_norm=kind == "qwen3",
            is_standard=kind in STANDARD and kinds == {"full_attention"},
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        return None
    sizes = (shape.vocabulary, hidden, shape.layers, heads, shape.kv_heads, shape.head_dim, shape.mlp)
    return shape if kind in GATED and min(sizes) > 0 else None
