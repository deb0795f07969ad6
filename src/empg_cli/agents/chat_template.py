"""What a tokenizer's chat template says about turns: how one ends, what it writes of the answer, what it keeps."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, Final

from jinja2.exceptions import TemplateError

from empg_cli.agents.control_tokens import ControlTokens
from empg_cli.errors import UserError

log = logging.getLogger(__name__)

_USER, _ANSWER, _NEXT, _THOUGHT = (f"\u241f{what}\u241f" for what in ("asks", "responds", "goes on", "thinks"))
"""Messages that stand for any: what a template writes around them is its form."""
_CLOCK: Final = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""transformers' function for templates with today's date (Llama-3.1: `strftime_now("%d %b %Y")`)."""


class ChatTemplateError(UserError):
    """Episodes cannot be played with this chat template. The message says why and what to do."""


class ChatTemplate:
    """Renders conversations, and knows the form of their turns.

    Attributes:
        control: the tokens that build turns, which no message may contain.
        end: text from the end of an assistant's message up to and including the token that closes the turn.
        stop_ids: tokens that end a response: the one of the template, the tokenizer's, and those given.
        thought: what the template itself writes of an answer, from `<think>` on; empty for most.
        keeps_thoughts: earlier answers are shown with their thoughts.
        trims: blanks around an answer are not shown.
    """

    def __init__(self, tokenizer: Any, *, end_ids: Iterable[int], today: date) -> None:
        """
        Args:
            end_ids: end tokens that the model's generation config names.
            today: the date that templates with a date show.

        Raises:
            ChatTemplateError: the template does not show what is said, or nothing tells where an answer ends.
        """
        self._tokenizer, self._source = tokenizer, _with_date(tokenizer.get_chat_template(), today)
        question, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
        thinking = {"role": "assistant", "content": f"<think>{_THOUGHT}</think>{_ANSWER}"}
        following = {"role": "user", "content": _NEXT}
        asked = self.render([question], respond=True)
        answered = self.render([question, answer], respond=False)
        went_on = self.render([question, answer, following], respond=True)
        if any(text not in went_on for text in (_USER, _ANSWER, _NEXT)) or _USER not in asked:
            raise ChatTemplateError(
                "the chat template does not show messages whose content is plain text; model.prompt=chat cannot use it"
            )
        before_answer, after = asked.partition(_USER)[2], went_on.partition(_ANSWER)[2]
        self.control = ControlTokens(tokenizer, written=before_answer + after)
        declared = {tokenizer.eos_token_id, *end_ids} - {None}
        self.end, end_id = self._find_end(after.partition(_NEXT)[0], answered.partition(_ANSWER)[2], declared)
        for id_ in declared - self.control.ids:
            log.warning("token %d ends responses by the model's config, but is ordinary text: it ends none here", id_)
        self.stop_ids = tuple(sorted({end_id} | declared & self.control.ids))
        start = before_answer.find("<think>")
        self.thought = before_answer[start:] if start >= 0 else ""
        self.keeps_thoughts = _THOUGHT in self.render([question, thinking, following], respond=True)
        padded = {"role": "assistant", "content": f" {_ANSWER} "}
        self.trims = f" {_ANSWER} " not in self.render([question, padded, following], respond=True)

    def opening(self, text: str) -> str:
        """A first user message, up to where the answer begins."""
        return self.render([{"role": "user", "content": text}], respond=True)

    def turn(self, text: str) -> str:
        """What follows an answer when the user says `text`, up to where the next answer begins."""
        messages = [
            {"role": "user", "content": _USER},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": text},
        ]
        return self.render(messages, respond=True).partition(_ANSWER)[2]

    def render(self, messages: list[dict[str, str]], *, respond: bool) -> str:
        """The conversation as text; with `respond`, up to where the assistant's answer begins."""
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, chat_template=self._source, tokenize=False, add_generation_prompt=respond
            )
        except (TemplateError, TypeError) as error:
            raise ChatTemplateError(
                f"the chat template refuses a conversation of user and assistant: {error}; model.prompt=chat cannot "
                "use it"
            ) from error
        return text

    def _find_end(self, between: str, at_last: str, declared: set[int]) -> tuple[str, int]:
        """The text that closes an assistant's turn, and its last token: the first control token after the message.

        It may belong to the next turn's head (GLM-4 ends an answer by `<|user|>`); then it ends the answer only if the
        model's config or tokenizer say so.

        Args:
            between: what stands between an assistant's message and the next user's.
            at_last: what stands after an assistant's message that is the last.
        """
        end, last = next(self.control.find(between), None), next(self.control.find(at_last), None)
        if end and (end.id in declared or (last and last.id == end.id)):
            return between[: end.stop], end.id
        raise ChatTemplateError(
            f"the chat template writes {between!r} after an answer, and no token in it is known to end one: an answer "
            "that ends could not be told from one that goes on\n"
            "use a chat model whose template closes its turns with a special token, or name that token in "
            "generation_config.json (eos_token_id)"
        )


def shows_date(tokenizer: Any) -> bool:
    """Whether prompts depend on the day they are made."""
    return "strftime_now(" in (getattr(tokenizer, "chat_template", None) or "")


def _with_date(template: str, today: date) -> str:
    """The template with a text in place of the clock. (A template is given data alone, so the clock cannot be.)"""
    dated = _CLOCK.sub(lambda call: f"{call[1]}{today.strftime(call[2])}{call[1]}", template)
    if "strftime_now(" in dated:
        log.warning(
            "the chat template reads the clock in a way that cannot be fixed to a date: prompts change at midnight"
        )
    return dated


def generation_ends(model: Any) -> tuple[int, ...]:
    """End tokens of a model's generation config (Llama-3.1 lists three, its tokenizer and template know one)."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return () if named is None else tuple(named) if isinstance(named, list | tuple) else (named,)
