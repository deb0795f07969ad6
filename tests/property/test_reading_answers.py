"""An answer decoded part by part is the answer decoded as a whole, and costs a bounded number of tokens a token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_cli.agents.codec import ChatCodec, CompactCodec
from empg_cli.integrations.serving.answering import Answer, _stop
from empg_cli.integrations.serving.reading import Reading
from tests.support.chat import chat_tokenizer
from tests.support.tiny import tiny_config, tiny_policy

BYTES = ChatCodec(chat_tokenizer())
WORDS = CompactCodec(tiny_policy(tiny_config()).tokenizer)
CODECS = pytest.mark.parametrize("codec", [BYTES, WORDS], ids=["bytes", "words"])
SPOKEN = ["go to fridge 1", "naïve 日本語", "🙂 ok", "é", "a room.", "\N{REPLACEMENT CHARACTER}"]
ANSWERS = st.one_of(
    st.lists(st.integers(0, 299), max_size=40),  # broken characters and control tokens included
    st.lists(st.sampled_from(SPOKEN), max_size=8).map(lambda texts: BYTES.encode("".join(texts))),
)


def naive_stop(codec: ChatCodec | CompactCodec, ids: Sequence[int], stops: Sequence[str]) -> tuple[int, str] | None:
    text = codec.decode(ids)
    found = [(place, stop) for stop in stops if (place := text.find(stop)) >= 0]
    if not found:
        return None
    place, stop = min(found)
    return next(n for n in range(1, len(ids) + 1) if stop in codec.decode(ids[:n])[place:]), text[:place]


@CODECS
@settings(max_examples=150, deadline=None)
@given(ids=ANSWERS)
def test_text_and_offsets_are_those_of_whole_decodings(codec: ChatCodec | CompactCodec, ids: list[int]) -> None:
    reading = Reading(codec.decode)
    for id_ in ids:
        reading.read([id_])
        assert reading.text == codec.decode(ids[: len(reading.offsets)])
    assert reading.offsets == [len(codec.decode(ids[:number])) for number in range(len(ids))]


@settings(max_examples=150, deadline=None)
@given(
    ids=ANSWERS, stops=st.lists(st.sampled_from(["o", "語", "🙂 o", "room", "fridge 1", "ï"]), min_size=1, max_size=3)
)
def test_a_stop_text_is_found_and_cut_as_in_the_whole(ids: list[int], stops: list[str]) -> None:
    reading, answer, done = Reading(BYTES.decode), Answer([]), 0
    while done < len(ids) and not answer.is_complete:
        new = ids[done : done + 5]
        done += len(new)
        answer.ids += new
        _stop(answer, reading, new, stops)
    wanted = naive_stop(BYTES, ids[:done], stops)
    assert wanted == ((len(answer.ids), answer.text) if answer.is_complete else None)


@CODECS
def test_it_costs_as_much_at_the_end_as_at_the_beginning(codec: ChatCodec | CompactCodec) -> None:
    decoded = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return codec.decode(ids)

    ids = (BYTES.encode("naïve 日本語 🙂 go to fridge 1. ") if codec is BYTES else list(range(4, 24))) * 100
    Reading(decode).read(ids)
    assert decoded < 12 * len(ids)
