"""One episode of Deep Search: search, open pages, answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from empg_cli.benchmarks.base import Observation, StepResult
from empg_cli.benchmarks.deepsearch.actions import TEMPLATES, Action, ActionForm
from empg_cli.benchmarks.deepsearch.answers import METRICS, Normaliser, all_metrics, normalise, squad_normalise
from empg_cli.benchmarks.deepsearch.retrieval.base import MAX_QUERY_CHARS, Hit, Retriever, Runner
from empg_cli.benchmarks.deepsearch.reward import Shaping, shaped_reward
from empg_cli.benchmarks.deepsearch.rules import Reader, Rules, final_answer
from empg_cli.benchmarks.deepsearch.transcript import evidence_was_shown, is_well_formed
from empg_cli.benchmarks.deepsearch.world.questions import Question
from empg_cli.services.errors import NoAnswerError
from empg_cli.types import Task

RewardKind = Literal["em", "f1", "sub_em", "cover_em", "judge"]
Judge = Callable[[str, Sequence[str], str], Awaitable[bool]]
"""(question, gold answers, predicted answer) -> the answer is right. Raises when it cannot tell."""

_HINT: Final = {
    "tag": "To search, write <search> query </search>{open}; to finish, <answer> answer </answer>.",
    "react": "To search, write search[query]{open}; to finish, answer[answer].",
    "json": (
        'To search, write <tool_call>{{"name": "search", "arguments": {{"query": "..."}}}}</tool_call>{open}; '
        'to finish, use the tool "answer" with the argument "answer".'
    ),
}
_OPEN_HINT: Final = {
    "tag": "; to read a page, <open> document id </open>",
    "react": "; to read a page, open[document id]",
    "json": '; to read a page, use the tool "open" with the argument "id"',
}
COUNTS: Final = (
    "searches",
    "opened_pages",
    "failed_searches",
    "malformed_actions",
    "refused_actions",
    "cut_queries",
    "cut_observations",
)
"""What an episode counts so far; stands in the `info` of every step."""
_NO_ANSWER: Final = dict.fromkeys(METRICS, 0.0)
LAST_TURN_NOTICE: Final = "This is the last turn: give the final answer now."


@dataclass(frozen=True, slots=True)
class DeepSearchRules:
    """How an episode is played; the fields are those of `config.deepsearch.Deepsearch`."""

    max_steps: int
    last_turn: Literal["any", "answer"]
    top_k: int
    snippet_words: int
    open_tool: bool
    max_observation_chars: int
    action_form: ActionForm
    reward: RewardKind
    success_reward: float
    shaping: Shaping
    rules: Rules = "ours"

    @property
    def reader(self) -> Reader:
        return Reader(self.rules, self.action_form)

    @property
    def form(self) -> ActionForm:
        return self.reader.form


class DeepSearchEnv:
    """Single use. `history` holds what was said (by the rules in use) and shown in every step so far."""

    def __init__(
        self, task: Task, rules: DeepSearchRules, retriever: Retriever, runner: Runner, judge: Judge | None
    ) -> None:
        self.task = task
        self.rules = rules
        self.history: list[tuple[str, str]] = []
        self._question: Question = task.data
        self._retriever, self._runner, self._judge = retriever, runner, judge
        self._counts: Counter[str] = Counter()
        self._done = False

    @property
    def tools(self) -> tuple[str, ...]:
        return tuple(TEMPLATES[tool] for tool in ("search", "open", "answer") if tool != "open" or self.rules.open_tool)

    def reset(self) -> Observation:
        return Observation(self._question.text, self._actions_now())

    def step(self, action: str) -> StepResult:
        """Any text is legal; one without a complete action, an empty query or an unknown document changes nothing but
        costs the turn."""
        return self._runner.run(self.step_async(action))

    async def step_async(self, action: str) -> StepResult:
        """`step` for callers that have an event loop and many episodes at once."""
        if self._done:
            raise RuntimeError(f"the episode of {self.task.task_id} is over; make a new environment")
        reading = self.rules.reader.read(action)
        parsed, said = reading.action, reading.said
        if parsed and parsed.tool == "answer":
            self.history.append((said, ""))
            return await self._finish(parsed.argument, "", valid=True)
        text, valid, info = await self._use_tool(parsed)
        self.history.append((said, text))
        if len(self.history) >= self.rules.max_steps:
            return await self._finish(None, text, valid=valid)
        if self._must_answer:
            text = f"{text}\n{LAST_TURN_NOTICE}"
            self.history[-1] = (said, text)
        info = self._standing(_NO_ANSWER, well_formed=False, step_limit=False) | info
        return StepResult(text, self._actions_now(), 0.0, done=False, success=False, score=0.0, valid=valid, info=info)

    def _standing(self, metrics: dict[str, float], *, well_formed: bool, step_limit: bool) -> dict[str, Any]:
        """The numbers of an episode that were to end here, as one does whose next prompt is too long."""
        counts = {name: self._counts[name] for name in COUNTS}
        return {**metrics, "well_formed": well_formed, "step_limit": step_limit, **counts}

    @property
    def _must_answer(self) -> bool:
        """`last_turn: answer` (Search-R1): the last of `max_steps` model calls may only answer."""
        return self.rules.last_turn == "answer" and len(self.history) == self.rules.max_steps - 1

    def _actions_now(self) -> tuple[str, ...]:
        return (TEMPLATES["answer"],) if self._must_answer else self.tools

    async def _use_tool(self, action: Action | None) -> tuple[str, bool, dict[str, Any]]:
        """Observation text, whether the action was accepted, info."""
        if action is None:
            self._counts["malformed_actions"] += 1
            says_nothing = self.rules.rules == "verl_agent"
            return "" if says_nothing else self._hint("That is not a complete action. "), False, {}
        try:
            if self._must_answer:
                return self._refuse("No search is left. ", action)
            if not action.argument and self.rules.rules == "ours":
                return self._refuse(f"The {action.tool} needs an argument. ", action)
            if action.tool == "search":
                return await self._search(action.argument)
            if self.rules.open_tool:
                return await self._open(action)
            return self._refuse("Pages cannot be opened here. ", action)
        except NoAnswerError as error:
            self._counts["failed_searches"] += 1
            text = self._inform(f"The search engine did not answer ({error}). Try again or answer from what is known.")
            return text, True, {"tool": action.tool, "search_error": str(error)}

    def _refuse(self, reason: str, action: Action) -> tuple[str, bool, dict[str, Any]]:
        self._counts["refused_actions"] += 1
        return self._hint(reason), False, {"tool": action.tool}

    async def _search(self, query: str) -> tuple[str, bool, dict[str, Any]]:
        self._counts["searches"] += 1
        self._counts["cut_queries"] += len(query) > MAX_QUERY_CHARS
        hits = (await self._retriever.search([query], self.rules.top_k))[0]
        rows = [self._row(rank, hit) for rank, hit in enumerate(hits, start=1)]
        info = {"tool": "search", "documents": tuple(hit.id for hit in hits)}
        return self._inform("\n".join(rows) or "No results."), True, info

    def _row(self, rank: int, hit: Hit) -> str:
        """`Doc 1(Title: T) text` as in Search-R1; with `open` also the id that it takes."""
        limit, words = self.rules.snippet_words, hit.text.split()
        text = " ".join(words[:limit]) + " ..." if limit and len(words) > limit else " ".join(words)
        return f"Doc {rank}{f' [{hit.id}] ' if self.rules.open_tool else ''}(Title: {hit.title}) {text}"

    async def _open(self, action: Action) -> tuple[str, bool, dict[str, Any]]:
        page = await self._retriever.open(action.argument)
        if page is None:
            return self._refuse(f"There is no document {action.argument[:80]!r}; ids stand in brackets. ", action)
        self._counts["opened_pages"] += 1
        return self._inform(f"(Title: {page.title}) {page.text}"), True, {"tool": "open", "documents": (page.id,)}

    def _inform(self, text: str) -> str:
        if len(text) > self.rules.max_observation_chars:
            self._counts["cut_observations"] += 1
            text = text[: self.rules.max_observation_chars]
        return f"<information>{text}</information>" if self.rules.form == "tag" else text

    def _hint(self, reason: str) -> str:
        """What was wrong, and what can be done in the form that is read. With `any` the agent's wording says the form
        (it writes out `StepResult.actions`): a second form beside the prompt's would mislead."""
        form = self.rules.form
        how = "" if form == "any" else _HINT[form].format(open=_OPEN_HINT[form] if self.rules.open_tool else "")
        if self.rules.rules == "search_r1":  # there it stands outside of the tags, which its format reward judges
            return reason + how
        return self._inform((reason + how).strip())

    async def _finish(self, answer: str | None, text: str, *, valid: bool) -> StepResult:
        """The last step: an answer, or the step limit (`answer` is None)."""
        self._done = True
        ended_itself = answer is not None
        plain: Normaliser = normalise
        if self.rules.rules != "ours":
            answer, plain = final_answer(self.history), squad_normalise
        golds, shaping = self._question.answers, self.rules.shaping
        metrics = all_metrics(answer, golds, plain) if answer is not None else _NO_ANSWER
        value, success = await self._value(answer, metrics)
        well_formed = self._is_well_formed()
        observations = [observation for _, observation in self.history]
        reward = self.rules.success_reward * shaped_reward(
            value,
            shaping,
            was_answered=answer is not None,
            is_well_formed=well_formed,
            evidence_was_shown=bool(shaping.evidence) and evidence_was_shown(observations, golds, plain),
        )
        info = {"answer": answer, **self._standing(metrics, well_formed=well_formed, step_limit=not ended_itself)}
        at_limit = not ended_itself
        return StepResult(text, (), reward, done=True, success=success, score=value, valid=valid, info=info,
                          at_limit=at_limit)  # fmt: skip

    def _is_well_formed(self) -> bool:
        """By Search-R1's state machine in tag form; in the other forms, every response held an action and the last one
        answered."""
        if self.rules.form == "tag":
            text = "\n".join(f"{said}\n{shown}" for said, shown in self.history)
            return is_well_formed(text, knows_open=self.rules.rules == "ours")
        return not self._counts["malformed_actions"] and self.history[-1][1] == ""

    async def _value(self, answer: str | None, metrics: dict[str, float]) -> tuple[float, bool]:
        """The answer's value in [0, 1] and whether the task counts as solved (exact match, or the judge's yes)."""
        if self.rules.reward != "judge":
            return metrics[self.rules.reward], metrics["em"] == 1.0
        if answer is None or not answer.strip():
            return 0.0, False
        if metrics["em"] == 1.0:  # saves most calls, and a judge cannot punish the right string
            return 1.0, True
        assert self._judge is not None
        is_right = await self._judge(self._question.text, self._question.answers, answer)
        return float(is_right), is_right
