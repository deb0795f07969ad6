"""How far back each layer sees, as the config says it."""

from __future__ import annotations

from typing import Any


def windows_of(config: Any) -> list[int | None]:
    """Columns that a token sees in each layer, its own included; None = all.

    Families keep windows in `layer_types` with `sliding_window` (Gemma 2, Qwen 2 with `max_window_layers`), or in
    `sliding_window` alone, for all layers (Mistral, Mixtral, Phi-3, Starcoder2), switched off by
    `use_sliding_window=false` where a family has that key. A window of all positions is none.
    """
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    positions = getattr(config, "max_position_embeddings", None)
    if not getattr(config, "use_sliding_window", True) or (window and positions and window >= positions):
        window = None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in kinds]
