"""Benchmarks as conversations, and as environments of `verifiers`: the same prompts, actions and rewards as ours."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empg_cli.agents.agent import Agent, wording_maker
from empg_cli.agents.messages import Message, MessageCodec
from empg_cli.benchmarks.border import EnvironmentFailed
from empg_cli.integrations.chats import Chats
from empg_cli.rollout.collect import collect
from empg_cli.rollout.engine import Completion
from empg_cli.rollout.episode import EpisodeRules
from empg_cli.types import Trajectory
from tests.support.server import FakeServer, Reply, Request

KEYS: dict[str, Any] = {"train_games": 5, "max_steps": 4}
ANSWERS = (
    "<think>I look.</think><action>look</action>",
    "no tags at all",
    "<think>Odd.</think><action>dance</action>",
    "<think>I look.</think><action>inventory</action>",
)


class Scripted:
    """An engine that says these things in turn, to every episode."""

    is_deterministic = True

    def __init__(self) -> None:
        self.asked: dict[Any, list[list[Message]]] = {}

    async def generate(self, prompt: Any, *, episode: Any, draws: Any, sampling: Any) -> Completion[Message]:
        asked = self.asked.setdefault(episode, [])
        asked.append(list(prompt))
        return Completion([Message("assistant", ANSWERS[len(asked) - 1])], [], None, True, 0)

    def close(self, episode: Any) -> None: ...

    def revive(self) -> None: ...


def ours(chats: Chats, tasks: int) -> tuple[list[Trajectory], Scripted]:
    engine, make_wording = Scripted(), wording_maker(chats.settings, "chat", chats.benchmark)
    rules = EpisodeRules(True, 4, 0.0, 64, 100_000, chats.settings.invalid_action_penalty, penalise_refused=False)
    played = collect(
        engine,
        chats.benchmark,
        lambda: Agent(make_wording(), MessageCodec(), context="transcript", history=0),
        chats.benchmark.tasks("train")[:tasks],
        group_size=1,
        rules=rules,
        stream=(0,),
    )
    return played, engine


def test_a_chat_is_an_episode_of_ours() -> None:
    chats = Chats("alfworld", **KEYS)
    played, engine = ours(chats, 2)
    for trajectory, row in zip(played, chats.rows("train", 2), strict=True):
        chat = chats.begin(row["info"])
        said = [row["prompt"][0]["content"]]
        assert chat.said == said[0]
        while not chat.is_over:
            said.append(chat.answer(ANSWERS[len(chat.steps)]))
        messages = engine.asked[trajectory.group, trajectory.index][-1]
        assert [message.content for message in messages if message.role == "user"] == said[:-1]
        assert [step.action for step in chat.steps] == [step.action for step in trajectory.steps]
        assert chat.reward == pytest.approx(trajectory.reward) == pytest.approx(-0.1)  # one answer had no form
        assert (chat.success, chat.score) == (trajectory.success, trajectory.score)


def test_rows_name_their_tasks() -> None:
    chats = Chats("alfworld", **KEYS)
    rows = list(chats.rows("train"))
    tasks = chats.benchmark.tasks("train")
    assert [row["info"]["task_id"] for row in rows] == [task.task_id for task in tasks]
    assert {row["prompt"][0]["role"] for row in rows} == {"user"}


def test_a_broken_environment_is_its_episodes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chats = Chats("alfworld", **KEYS)
    chat = chats.begin(next(chats.rows("train", 1))["info"])

    def broken(action: str) -> None:
        raise RuntimeError("gone")

    monkeypatch.setattr(chat._env, "step", broken)
    with pytest.raises(EnvironmentFailed, match="gone"):
        chat.answer(ANSWERS[0])


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Says ANSWERS in turn; where a conversation is, its length tells."""

    def answer(request: Request) -> Reply:
        turn = (len(request.json["messages"]) - 1) // 2
        message = {"role": "assistant", "content": ANSWERS[turn]}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        return Reply({**head, "choices": [choice], "usage": usage})

    fake = FakeServer(answer)
    yield fake
    fake.close()


def test_verifiers_plays_it(server: FakeServer) -> None:
    vf = pytest.importorskip("verifiers", reason="verifiers is not installed")
    if not hasattr(vf, "MultiTurnEnv"):
        pytest.skip(f"verifiers {vf.__version__} has no MultiTurnEnv")
    import openai

    from empg_cli.integrations.verifiers import load_environment

    env = load_environment("alfworld", eval_split="train", limit=3, **KEYS)
    assert len(env.get_dataset()) == len(env.get_eval_dataset()) == 3
    expected, _ = ours(env.chats, 3)
    client = vf.OpenAIChatCompletionsClient(openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none"))
    found = asyncio.run(env.evaluate(client=client, model="m", num_examples=3, rollouts_per_example=2))
    outputs = found["outputs"]
    assert len(outputs) == 6
    assert [output["reward"] for output in outputs] == pytest.approx([expected[0].reward] * 6)
    assert {output["metrics"]["success"] for output in outputs} == {0.0}
    for output in outputs:
        assert output["is_completed"] and output["error"] is None
        roles = [message["role"] for message in output["completion"]]
        assert roles == ["assistant", "user"] * 4  # the last answer was played too, and its reply is shown
    assert len(server.requests) == 6 * 4


def test_verifiers_waits_for_no_episode_while_others_could_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    vf = pytest.importorskip("verifiers", reason="verifiers is not installed")
    if not hasattr(vf, "MultiTurnEnv"):
        pytest.skip(f"verifiers {vf.__version__} has no MultiTurnEnv")
    from empg_cli.integrations.verifiers import load_environment

    env = load_environment("alfworld", eval_split="train", limit=2, **KEYS)
    info = next(env.chats.rows("train", 1))["info"]
    together = threading.Barrier(2, timeout=30)  # two at once, or none
    begin = env.chats.begin
    monkeypatch.setattr(env.chats, "begin", lambda about: (together.wait(), begin(about))[1])

    async def both() -> None:
        await asyncio.gather(env.setup_state({"info": info}), env.setup_state({"info": info}))

    asyncio.run(both())


def test_without_the_package_the_command_is_said() -> None:
    try:
        from verifiers import MultiTurnEnv  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=re.escape("verifiers>=0.1.5,<0.2")):
            import empg_cli.integrations.verifiers  # noqa: F401


def test_a_benchmark_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "adding-a-benchmark.md").read_text(encoding="utf-8")
    (tmp_path / "lamps_for_chats.py").write_text(page.partition("# lamps.py\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    chats = Chats("lamps", target="lamps_for_chats:Lamps", width=2)
    (row,) = (row for row in chats.rows("train") if row["info"]["task_id"] == "01")
    assert row["prompt"][0]["content"].startswith("lamps off on\n\nAdmissible actions now: ['flip 1', 'flip 2']")
    chat = chats.begin(row["info"])
    chat.answer("<think>a</think><action>flip 1</action>")
    assert chat.answer("<think>b</think><action>flip 2</action>") == "lamps on on"
    assert chat.is_over and chat.success and chat.reward == 1.0
