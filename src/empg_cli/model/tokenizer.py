"""A model's tokenizer: of the class that was saved, and bound to no length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from empg_cli.errors import UserError
from empg_cli.reading.streams import read_json


def load_tokenizer(path: str) -> Any:
    """The tokenizer as it was saved. AutoTokenizer goes by the model's type where a generic class was saved, and would
    read a word-level vocabulary with Qwen2's byte-pair rules: every word would vanish."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings = Path(path) / "tokenizer_config.json"
    saved_class = read_json(settings).get("tokenizer_class") if settings.is_file() else None
    if saved_class in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        return unbound(PreTrainedTokenizerFast.from_pretrained(path))
    return unbound(AutoTokenizer.from_pretrained(path, trust_remote_code=False))


def unbound(tokenizer: Any) -> Any:
    """The same tokenizer, whose core neither cuts nor pads: a script that trained with `truncation` or `padding` leaves
    both in the tokenizer.json that it saves, and every prompt would be cut or padded without a word.

    Raises:
        UserError: it has no such core.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise UserError(
            f"{type(tokenizer).__name__} is a tokenizer in Python: empg needs one of the tokenizers library, which has "
            "a tokenizer.json"
        )
    core.no_truncation()
    core.no_padding()
    return tokenizer
