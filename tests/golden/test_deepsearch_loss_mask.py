"""Which tokens of a Deep Search episode train: what the model said, to the token, and nothing that was retrieved.

Both wordings (chat tags and compact words) in both contexts (a row per episode and a row per step).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from empg_cli.agents.agent import Agent
from empg_cli.agents.codec import ChatCodec, Codec, CompactCodec
from empg_cli.agents.deepsearch_chat import DeepSearchChat
from empg_cli.agents.deepsearch_compact import DeepSearchCompact, vocabulary
from empg_cli.benchmarks import make_benchmark
from empg_cli.benchmarks.deepsearch.corpus import Passage
from empg_cli.benchmarks.deepsearch.index import build_index
from empg_cli.config import load
from empg_cli.model.batch import make_batch
from empg_cli.model.tiny import word_tokenizer
from empg_cli.types import Batch, Trajectory
from tests.support.chat import chat_tokenizer
from tests.support.scripted import scripted_rollout

QUESTION = "What is the year in which the author of The Zob Garden was born?"
PASSAGES = [
    Passage("0", "The Zob Garden", "The Zob Garden is a novel by Ana Ro. The Zob Garden was published in 1912."),
    Passage("1", "Ana Ro", "Ana Ro came into the world in the year 1890. Ana Ro wrote The Zob Garden."),
]
CHAT = [
    "<think>Who wrote it?</think><search>The Zob Garden novel by</search>",
    "<think>When was Ana Ro born?</think><search>Ana Ro year</search>",
    "<think>1890.</think><answer>1890</answer>",
]
COMPACT = ["e1 book_author", "e2 birth_year", "e4 answer"]

Wording = tuple[Codec, Callable[[], Any], list[str]]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("questions")
    (folder / "nq").mkdir()
    (folder / "nq" / "test.jsonl").write_text(
        f'{{"id": "0", "question": "{QUESTION}", "golden_answers": ["1890"]}}\n', encoding="utf-8"
    )
    build_index(PASSAGES, folder / "index")
    words = [
        "benchmark=deepsearch",
        f"benchmark.data_dir={folder}",
        f"benchmark.retrieval.index_dir={folder / 'index'}",
        "benchmark.top_k=2",
    ]
    return make_benchmark(**load(words).benchmark.model_dump())


@pytest.fixture(params=["chat", "compact"])
def wording(request: pytest.FixtureRequest) -> Wording:
    if request.param == "chat":
        return ChatCodec(chat_tokenizer()), DeepSearchChat, CHAT
    return CompactCodec(word_tokenizer(vocabulary())), DeepSearchCompact, COMPACT


def play(benchmark: Any, wording: Wording, context: str) -> Trajectory:
    codec, make_wording, script = wording
    (trajectory,) = scripted_rollout(
        benchmark,
        lambda: Agent(make_wording(), codec, context=context, history=2),
        benchmark.tasks("test"),
        [script],
        append_only=context == "transcript",
    )
    assert trajectory.success and len(trajectory.steps) == 3
    assert all("Ana Ro" in step.observation for step in trajectory.steps[1:])
    return trajectory


def flat(rows: list[list[int]]) -> list[int]:
    return [token for row in rows for token in row]


def trained_positions(batch: Batch) -> list[torch.Tensor]:
    """For each row, True where a token trains, from what the loss uses: row, start and mask of each step."""
    trained = [torch.zeros(len(row), dtype=torch.bool) for row in batch.row_ids]
    for step in range(batch.num_steps):
        row, start = int(batch.step_row_S[step]), int(batch.step_start_S[step])
        count = int(batch.mask_ST[step].sum())
        assert batch.mask_ST[step][:count].all()
        assert batch.row_ids[row][start : start + count].equal(batch.token_ST[step][:count])
        assert not trained[row][start : start + count].any(), "a token trains twice"
        trained[row][start : start + count] = True
    return trained


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_exactly_the_assistant_tokens_train(benchmark: Any, wording: Wording, context: str) -> None:
    codec, _, script = wording
    batch = make_batch([play(benchmark, wording, context)], append_only=context == "transcript")
    assert len(batch.row_ids) == (1 if context == "transcript" else 3)
    said = [codec.response(text) for text in script]
    trained = [row[mask].tolist() for row, mask in zip(batch.row_ids, trained_positions(batch), strict=True)]
    assert trained == ([flat(said)] if context == "transcript" else said)
    assert int(batch.mask_ST.sum()) == sum(map(len, said))


@pytest.mark.parametrize("context", ["transcript", "window"])
def test_retrieved_tokens_are_read_but_never_train(benchmark: Any, wording: Wording, context: str) -> None:
    codec, _, script = wording
    trajectory = play(benchmark, wording, context)
    batch = make_batch([trajectory], append_only=context == "transcript")
    masked = [row[~mask].tolist() for row, mask in zip(batch.row_ids, trained_positions(batch), strict=True)]
    # Everything that is not trained is the prompts, as the model read them.
    prompts = [step.prompt_ids for step in trajectory.steps]
    assert masked == ([flat(prompts)] if context == "transcript" else prompts)
    read = " ".join(codec.decode(row) for row in masked)
    for retrieved in ("published in 1912", "came into the world") if script is CHAT else ("book_year", "shown e1"):
        assert retrieved in read
    # And none of it is among the tokens of the loss, its entropies or its log-probs.
    for values_ST in (batch.token_ST, batch.old_logprob_ST, batch.entropy_ST):
        assert not values_ST[~batch.mask_ST].any()
    assert bool((batch.entropy_ST[batch.mask_ST] == 0.25).all())


def test_a_golden_compact_transcript(benchmark: Any) -> None:
    """Token by token, `*` trains."""
    tokenizer = word_tokenizer(vocabulary())
    wording: Wording = (CompactCodec(tokenizer), DeepSearchCompact, COMPACT)
    batch = make_batch([play(benchmark, wording, "transcript")], append_only=True)
    (mask,) = trained_positions(batch)
    words = tokenizer.convert_ids_to_tokens(batch.row_ids[0].tolist())
    shown = "e1 book_author e2 e1 book_year e3 e2 birth_year e4"
    goal = "ask e1 book_author birth_year did"
    assert " ".join(f"*{word}" if trains else word for word, trains in zip(words, mask.tolist(), strict=True)) == (
        f"{goal} none <act> *e1 *book_author *<end> "
        f"shown {shown} {goal} e1 book_author <act> *e2 *birth_year *<end> "
        f"shown e2 birth_year e4 e2 of_book_author e1 e1 book_year e3 {goal} e2 birth_year <act> *e4 *answer *<end>"
    )
