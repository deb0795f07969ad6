"""WebShop in a closed vocabulary of whole words, for models far too small to read English.

A page of results becomes a rank, the number of matching search terms and a verdict on the price for each product; an
item becomes its option values. Every prompt repeats what is wanted and what has been chosen. Answers are short for
long actions: `search told options` types the words of the instruction, `open r3` clicks the third result. Only what the
environment has shown is used. Values that the generated shop does not know become unknown words.
"""

from __future__ import annotations

from collections.abc import Sequence

from empg_cli.agents.wording import Exchange, Parsed
from empg_cli.benchmarks.base import Observation
from empg_cli.benchmarks.webshop import actions, pages
from empg_cli.benchmarks.webshop.pages import PageKind
from empg_cli.benchmarks.webshop.reading import PageRead, Wish, read_page, read_wish, wanted
from empg_cli.benchmarks.webshop.vocabulary import OPTION_GROUPS
from empg_cli.model.tiny import ACT

MOST_MATCHES = 9
"""Higher numbers of matching search terms read the same."""
MOST_PAGES = 5
"""Of ten results each: a search lists 50 products at most."""

_BUTTON_WORDS = {pages.NEXT: "next", pages.PREVIOUS: "prev", pages.BACK: "back", pages.BUY: "buy"}
_BUTTONS = {word: text for text, word in _BUTTON_WORDS.items()}
_DETAILS = (*pages.DETAILS, pages.ATTRIBUTES)
_TOLD, _OPTIONS = "told", "options"
_STATE_WORDS = (
    *("start", "results", "item", "detail", "end", "refused", "nothing", "more", "last"),
    *("want", "any", "have", "none", "ok", "over", "maybe", "seen"),
    *("search", "open", "choose", "read"),
)


def vocabulary() -> list[str]:
    """Every word of this form, in a fixed order."""
    words = [*_STATE_WORDS, _TOLD, _OPTIONS, *_BUTTONS, *_DETAILS]
    words += [f"r{rank}" for rank in range(1, pages.PER_PAGE + 1)]
    words += [f"m{count}" for count in range(MOST_MATCHES + 1)]
    words += [f"p{number}" for number in range(1, MOST_PAGES + 1)]
    for group in OPTION_GROUPS.values():
        words += [_joined(group.name), *map(_joined, group.values)]
    return list(dict.fromkeys(words))


class WebshopCompact:
    def __init__(self) -> None:
        self._wish = Wish("", (), float("inf"))
        self._page = PageRead(PageKind.START, (), ())
        self._seen: set[str] = set()
        """ASINs that this agent has opened."""
        self._item = ""
        """The opened product as the results showed it; empty when none is open."""
        self._chosen: dict[str, str] = {}
        """Option values of the open product by group: the page does not show them."""
        self._log: list[str] = []
        """Each past step as a later window prompt repeats it."""

    def opening(self, observation: Observation) -> str:
        self._wish, self._page = read_wish(observation), read_page(observation)
        return self._line()

    def turn(self, action: str, observation: Observation) -> str:
        self._log.append(f"{self._line()} {ACT} {self.phrase(action)}")
        refused = "" if self._take(action) else "refused "
        self._page = read_page(observation)
        return refused + self._line()

    def window(self, past: Sequence[Exchange], steps_taken: int, observation: Observation) -> str:
        now = self.turn(past[-1].action if past else "", observation)
        return " ".join([*self._log[len(self._log) - len(past) :], now])

    def parse(self, response: str) -> Parsed:
        match response.split():
            case ["search", *words] if words:
                return Parsed(actions.search(self._expanded(words)), well_formed=True)
            case ["open", rank] if rank in self._ranks:
                return Parsed(actions.click(self._ranks[rank]), well_formed=True)
            case ["choose", word]:
                values = {_joined(value): value for value in self._groups}
                return Parsed(actions.click(values.get(word, word.replace("_", " "))), well_formed=True)
            case ["read", detail] if detail in _DETAILS:
                return Parsed(actions.click(detail), well_formed=True)
            case [button] if button in _BUTTONS:
                return Parsed(actions.click(_BUTTONS[button]), well_formed=True)
            case _:
                return Parsed(response, well_formed=False)

    def phrase(self, action: str) -> str:
        match actions.parse(action):
            case ("search", words) if action != actions.SEARCH_TEMPLATE:
                shorts = ([_TOLD, _OPTIONS], [_TOLD], [_OPTIONS])
                short = next((short for short in shorts if self._expanded(short) == words), [words])
                return " ".join(["search", *short])
            case ("click", text) if text in _BUTTON_WORDS:
                return _BUTTON_WORDS[text]
            case ("click", text) if text in _DETAILS:
                return f"read {text}"
            case ("click", text) if text in self._ranks.values():
                return next(f"open {rank}" for rank, asin in self._ranks.items() if asin == text)
            case ("click", text):
                return f"choose {_joined(text)}"
            case _:
                return "search"

    def _expanded(self, words: Sequence[str]) -> str:
        """What is typed: `told` and `options` stand for parts of the instruction."""
        parts = {_TOLD: self._wish.told, _OPTIONS: " ".join(value for _, value in self._wish.options)}
        return " ".join(filter(None, (parts.get(word, word) for word in words)))

    def _take(self, action: str) -> bool:
        """Remember what an action does to the open product; False if the page does not offer the action."""
        match actions.parse(action):
            case ("search", _):
                self._item, self._chosen = "", {}
            case ("click", text) if text in self._page.clickable:
                if text in self._ranks.values():
                    self._item, self._chosen = self._judged(text), {}
                    self._seen.add(text)
                elif text in self._groups:
                    self._chosen[self._groups[text]] = text
                elif text == pages.BACK or (text == pages.PREVIOUS and self._page.kind is not PageKind.DETAIL):
                    self._item, self._chosen = "", {}
            case _:
                return False
        return True

    @property
    def _ranks(self) -> dict[str, str]:
        """`r1`, `r2`.. and the product that each stands for on this page."""
        return {f"r{rank}": result.asin for rank, result in enumerate(self._page.results, 1)}

    @property
    def _groups(self) -> dict[str, str]:
        """The option group of each value on this page."""
        return {value: group for group, values in self._page.options.items() for value in values}

    def _judged(self, asin: str) -> str:
        rank, result = next((rank, it) for rank, it in enumerate(self._page.results, 1) if it.asin == asin)
        price = "seen" if asin in self._seen else self._wish.affords(result.price_tag)
        return f"r{rank} {self._matches(result.title)} {price}"

    def _matches(self, text: str) -> str:
        return f"m{min(self._wish.matches(text), MOST_MATCHES)}"

    def _line(self) -> str:
        return f"{self._view()} {self._state()}"

    def _view(self) -> str:
        match self._page.kind:
            case PageKind.RESULTS:
                listed = [self._judged(result.asin) for result in self._page.results] or ["nothing"]
                number = f"p{min(self._page.number, MOST_PAGES)}"
                return " ".join(["results", number, *listed, "more" if self._page.has_more else "last"])
            case PageKind.ITEM:
                offered = self._page.options.items()
                options = (" ".join(map(_joined, (group, *values))) for group, values in offered)
                return " ".join(["item", self._item, *options])
            case PageKind.DETAIL:
                return f"detail {self._matches(' '.join(self._page.segments[2:]))}"
            case kind:
                return kind.value

    def _state(self) -> str:
        """What is wanted and what has been chosen, beside every page."""
        named = [value for _, value in self._wish.options]
        want = named or list(wanted(self._wish, self._page.options)[0].values())
        have = [self._chosen[group] for group in sorted(self._chosen)]
        return f"want {' '.join(map(_joined, want)) or 'any'} have {' '.join(map(_joined, have)) or 'none'}"


def _joined(text: str) -> str:
    """One word for a shop's text. No word of ours has a `<`, with which the control words begin: a shop cannot say
    them."""
    return "_".join(text.replace("<", "").split())
