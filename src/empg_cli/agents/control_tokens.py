"""The tokens that build turns. They come from the chat template alone: text that spells one is text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

THOUGHT_TAGS: Final = ("<think>", "</think>")
"""Text, though some tokenizers have a token for each, and some call it special: prompts ask for them by name."""
LONG: Final = 10_000
"""Characters; about 15 ms."""
_BREAK: Final = "\ufdd0"
"""A noncharacter (no text has a use for it): the encoding is taken apart where it stands."""
_DELIMITED: Final = re.compile(r"<[|\uff5c].*[|\uff5c]>")


def encoding(tokenizer: Any, text: str, *, add_special_tokens: bool = False) -> Any:
    """Ids and offsets of a text as it stands. Asks the tokenizer's core directly: for texts this short the wrapper of
    transformers takes most of the time, a tenth of an ALFWorld rollout of the tiny agent."""
    core = tokenizer.backend_tokenizer
    if len(text) < LONG:
        return core.encode(text, add_special_tokens=add_special_tokens)
    # `encode` holds Python's lock until it is done, and stops all threads; this gives the same, and lets them run.
    return core.encode_batch([text], add_special_tokens=add_special_tokens)[0]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text as it stands."""
    ids: list[int] = encoding(tokenizer, text).ids
    return ids


class Found(NamedTuple):
    """A control token in a text, from character `start` up to `stop`."""

    id: int
    start: int
    stop: int


class ControlTokens:
    """A tokenizer's special tokens, its added ones of the form `<|...|>`, and those that its chat template writes."""

    def __init__(self, tokenizer: Any, *, written: str) -> None:
        """
        Args:
            written: text that the chat template writes around messages.
        """
        self._tokenizer = tokenizer
        added = {
            id_: token for id_, token in tokenizer.added_tokens_decoder.items() if token.content not in THOUGHT_TAGS
        }
        by_template = set(encode(tokenizer, written))
        self.special = frozenset(id_ for id_, token in added.items() if token.special)
        self.ids = self.special | {
            id_
            for id_, token in added.items()
            if _DELIMITED.fullmatch(token.content) or (id_ in by_template and token.content.strip())
        }
        self._unknown_id, self._unknown = tokenizer.unk_token_id, str(tokenizer.unk_token)

    def find(self, text: str) -> Iterator[Found]:
        """The control tokens in the encoding of a text, in order."""
        found = encoding(self._tokenizer, text)
        if self.ids.isdisjoint(found.ids):
            return
        for id_, (start, stop) in zip(found.ids, found.offsets, strict=True):
            # The unknown token also stands for characters that the tokenizer lacks.
            if id_ in self.ids and (id_ != self._unknown_id or self._unknown in text[start:stop]):
                yield Found(id_, start, stop)

    def defused(self, text: str) -> str:
        """A message's text, marked so that `encode` makes plain characters of every control token that it spells."""
        pieces, at = [], 0
        for found in self.find(text):
            spelled = text[found.start : found.stop]
            pieces += [text[at : found.start], _BREAK.join(("", *spelled, "")) if len(spelled) > 1 else ""]
            at = found.stop
        return "".join([*pieces, text[at:]])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of template and `defused` messages."""
        return [id_ for piece in text.split(_BREAK) for id_ in encode(self._tokenizer, piece)]
