"""Text to token ids and back, for the two kinds of models. What has been sampled is never encoded again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Protocol, TypeVar

from empg_cli.agents.chat_template import ChatTemplate
from empg_cli.agents.control_tokens import THOUGHT_TAGS, encode
from empg_cli.errors import UserError
from empg_cli.model.tiny import ACT, END
from empg_cli.model.tokenizer import unbound
from empg_cli.types import Step

P = TypeVar("P")
"""What prompts and responses are made of: token ids, or messages of a server that takes texts (`agents.messages`)."""


class Codec(Protocol[P]):
    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        ...

    @property
    def thought(self) -> str:
        """What prompts already hold of every response: `<think>` and what follows it; empty for most."""
        ...

    @property
    def needs_end(self) -> bool:
        """A response that was cut lacks a part of its form."""
        ...

    def opening(self, text: str) -> list[P]:
        """A prompt that stands alone."""
        ...

    def turn(self, text: str, *, ended: bool) -> list[P]:
        """What follows a response in a transcript.

        Args:
            ended: the response closed its turn itself; otherwise the closing is written here (and does not train).
        """
        ...

    def decode(self, response_ids: Sequence[P]) -> str:
        """Text of a response, without its end-of-turn token and without `thought`."""
        ...

    def without(self, response_ids: list[P], surplus: int) -> list[P]:
        """The response up to the token that completes all but the last `surplus` characters of its text; the whole
        response where only blanks and the end of the turn follow."""
        ...

    def response(self, text: str) -> list[P]:
        """A demonstration's response, the end-of-turn token included; `thought` is not repeated."""
        ...

    def step(self, prompt: list[P], response: list[P]) -> Step:
        """What is kept of a prompt and its response."""
        ...


class _TokenCodec:
    def step(self, prompt: list[int], response: list[int]) -> Step:
        return Step(prompt, response, [], [])


class CompactCodec(_TokenCodec):
    """Whitespace words, one token each: `task heat apple fridge ... <act>` -> `go fridge_1 <end>`."""

    thought = ""
    needs_end = True

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = unbound(tokenizer)
        missing = [word for word in (ACT, END) if word not in tokenizer.get_vocab()]
        if missing:
            raise UserError(
                f"model.prompt=compact needs a tokenizer with the words {ACT} and {END}, and this one lacks "
                f"{' and '.join(missing)}: a chat model is played with model=local model.path=DIR (model.prompt=chat)"
            )
        self._act, self._end = (tokenizer.convert_tokens_to_ids(token) for token in (ACT, END))
        self.stop_ids = (self._end,)

    def opening(self, text: str) -> list[int]:
        return [*self._encode(text), self._act]

    def turn(self, text: str, *, ended: bool) -> list[int]:
        return [*([] if ended else [self._end]), *self._encode(text), self._act]

    def decode(self, response_ids: Sequence[int]) -> str:
        words = self._tokenizer.convert_ids_to_tokens(list(response_ids))
        return " ".join(word for word in words if word != END)

    def without(self, response_ids: list[int], surplus: int) -> list[int]:
        return response_ids  # a response is an action and nothing else

    def response(self, text: str) -> list[int]:
        return [*self._encode(text), self._end]

    def _encode(self, text: str) -> list[int]:
        return encode(self._tokenizer, text)


class ChatCodec(_TokenCodec):
    """The model's own chat template; each environment reply is a user message.

    Ordinary text gives the ids that the template gives. A control token that a message spells (`<|im_end|>` on a
    retrieved page) becomes the tokens of its characters.
    """

    needs_end = False

    def __init__(self, tokenizer: Any, *, end_ids: Iterable[int] = (), today: date | None = None) -> None:
        """
        Args:
            end_ids: end tokens that the model's generation config names.
            today: the date that templates with a date show; None = the clock's.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "model.prompt=chat needs a tokenizer with a chat template, and this one has none: give the folder of "
                "an instruction-tuned model in model.path, or put a chat_template.jinja into this one"
            )
        self._tokenizer = unbound(tokenizer)
        self.template = ChatTemplate(tokenizer, end_ids=end_ids, today=today or date.today())
        self._control = self.template.control
        self.stop_ids, self.thought = self.template.stop_ids, self.template.thought

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of template and `defused` messages."""
        return self._control.encode(text)

    def opening(self, text: str) -> list[int]:
        return self.encode(self.template.opening(self._control.defused(text)))

    def conversation(self, messages: Iterable[tuple[str, str]]) -> list[int]:
        """A prompt of roles and texts, up to where the next answer begins."""
        shown = [{"role": role, "content": self._control.defused(text)} for role, text in messages]
        return self.encode(self.template.render(shown, respond=True))

    def turn(self, text: str, *, ended: bool) -> list[int]:
        after = self.template.turn(self._control.defused(text))
        return self.encode(after.removeprefix(self.template.end) if ended else after)

    def decode(self, response_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode([id_ for id_ in response_ids if id_ not in self._control.special])
        return text

    def without(self, response_ids: list[int], surplus: int) -> list[int]:
        text = self.decode(response_ids)
        characters = len(text) - surplus
        wanted = text[:characters]
        low, high = 1, len(response_ids)
        while low < high:  # the shortest beginning with that much text
            middle = (low + high) // 2
            low, high = (low, middle) if len(self.decode(response_ids[:middle])) >= characters else (middle + 1, high)
        while low < len(response_ids) and not self.decode(response_ids[:low]).startswith(wanted):
            low += 1  # a character may end in a later token than its first bytes
        rest = response_ids[low:]
        if rest and rest[-1] in self.stop_ids:
            rest = rest[:-1]
        return response_ids[:low] if self._tokenizer.decode(rest).strip() else response_ids

    def response(self, text: str) -> list[int]:
        return self.encode(self.answer(text))

    def answer(self, text: str) -> str:
        """What a model would write to say this, as `encode` takes it: without `thought`, with the end of the turn."""
        begin, close = THOUGHT_TAGS
        if self.thought and text.startswith(begin):  # with the blank lines that the template has written too
            text = (text.partition(close)[2] if close in self.thought else text.removeprefix(begin)).lstrip("\n")
        if self.template.trims:
            text = text.strip()
        return self._control.defused(text) + self.template.end
