"""Keys and passwords in a configuration: found and refused before anything is composed, printed or written.

They come from environment variables, whose names are configured. What is found here is never repeated in a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from empg_cli.config.problems import ConfigError, Problem

MASK = "***"
TITLE = "A secret must not stand in the configuration; nothing was started, and nothing written"

SHORTEST_SECRET = 8
"""Characters of the value of a secret environment variable that is refused, and masked."""
SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(api[_-]?key|(access|secret|private)[_-]?key|token|secret|passwd|password|credentials?|authorization)$"
)
"""`max_new_tokens` and `tokens_per_microbatch` are settings, not secrets: only a whole last word counts."""
ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
URL_LOGIN = re.compile(r"(?<=://)(?:[^/?#\s]+|[^/?#\s@:]+:(?!\d+(?:[/?#,'\"\]}\s]|$))[^\s@]{0,255})@")
"""Up to the last @ before the path of an address; also where the password has a slash in it. (Lengths are bounded here
and below where a long hostile text would else be read anew from each of its characters.)"""
_URL_QUERY = re.compile(
    r"(?i)([?&;#](?:[\w.-]*[_.-])?(?:api_?key|key|token|secret|passw(?:or)?d|pwd|auth|sig|signature)=)[^&#;\s]+"
)
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|rk|pk|tvly|glpat|xox[abprs])-(?=[\w-]{0,99}\d)[\w-]{16,}|"
    r"(?:hf|gsk|jina|r8|gh[pousr]|github_pat|[srp]k_(?:live|test))_(?=\w{0,99}\d)\w{16,}|"
    r"[Bb]earer\s+(?=[\w.~+/=-]{0,99}\d)[\w.~+/=-]{6,}|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,999}\.[\w-]{10,}\.[\w-]*)"
)
"""The forms that well-known services give their keys, and what a header that holds one looks like."""
_ASSIGNED = re.compile(
    r"(?i)(?<![a-z0-9])((?:api[_-]?key|(?:access|secret|private)[_-]?key|secret|passwd|password|credentials?)=['\"]?)"
    r"(?=[^\s&;,'\"]{0,99}\d)[^\s&;,'\"<>{}()\[\]$*]{6,}"
)
"""`api_key=foo123` within a text; a value without a digit may be a word, as in `secret=unknown`."""
_HOLDS_NAME = re.compile(r"(?i)(^|[_.])(key|token|secret|password)_env$")
_ADDRESS = re.compile(r"(?i)(^|[_.])urls?(\[\d+\])?$")
_PAIR = re.compile(r"""([A-Za-z_][\w.]{0,99})['"]?\s*[:=]\s*("[^"]*"|'[^']*'|[^\s,{}\[\]]+)""")


def refuse_in_words(words: Iterable[str]) -> None:
    """Of a command line.

    Raises:
        ConfigError: one of them holds a secret.
    """
    known, problems = _secrets_of_environment(), []
    for number, word in enumerate(words, start=1):
        key, equals, value = word.partition("=")
        is_setting = bool(equals) and not _KEY.search(key)
        shown_as = key.lstrip("+~-") if is_setting else f"word {number} after the command"
        pairs = [(shown_as, value if is_setting else word)]
        pairs += [(f"{shown_as}.{inner}", text.strip("'\"")) for inner, text in _PAIR.findall(value)]
        problems += [_problem(name, part, known) for name, text in pairs for part in _parts(name, text)]
    _refuse(problems)


def refuse_in_values(values: Mapping[str, Any]) -> None:
    """Of a composed configuration, plain data.

    Raises:
        ConfigError: one of the values is a secret.
    """
    known = _secrets_of_environment()
    _refuse(_problem(key, value, known) for key, value in _leaves(values, ""))


def without_secrets(text: str) -> str:
    """With `***` for what looks like a key, logins of addresses, and the values of secret environment variables."""
    return _masked(text, _secrets_of_environment())


def _masked(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, MASK)
    text = _URL_QUERY.sub(rf"\1{MASK}", URL_LOGIN.sub(f"{MASK}@", text))
    return _KEY.sub(MASK, _ASSIGNED.sub(rf"\1{MASK}", text))


def _refuse(problems: Iterable[Problem | None]) -> None:
    if found := dict.fromkeys(problem for problem in problems if problem):
        raise ConfigError(TITLE, list(found))


def _problem(key: str, value: str, known: Sequence[str]) -> Problem | None:
    """What is secret in the value of a key.

    Args:
        known: the values of secret environment variables.
    """
    shown = _masked(key, known)
    if _HOLDS_NAME.search(key) and value and not _may_name_a_variable(value):
        what = "is no name of an environment variable (capitals, digits, underscores): maybe the key itself"
        hint = f"put the key into an environment variable and give its name: {shown}=OPENAI_API_KEY, say"
        return Problem(shown, what, hint=hint)
    is_address = bool(_ADDRESS.search(key))
    host = re.split(r"[/?#]", value.partition("://")[2] or value)[0]
    if URL_LOGIN.search(value) or (is_address and "@" in host):
        what = "holds the user or password of an address"
    elif _URL_QUERY.search(value) and ("://" in value or is_address):
        what = "holds a key among the parameters of an address"
    elif (
        _KEY.search(value)
        or _ASSIGNED.search(value)
        or (SECRET_NAME.search(key) and value and not _is_harmless(key, value))
    ):
        what = "holds what looks like a key"
    elif any(secret in value for secret in known):
        what = "holds the value of a secret environment variable"
    else:
        return None
    hint = "leave it out: keys are read from environment variables, whose names api_key_env and settings like it take"
    return Problem(shown, what, hint=hint)


def _may_name_a_variable(value: str) -> bool:
    """In capitals, or set; and not a key that happens to be in capitals."""
    if value in os.environ:
        return True
    return bool(ENV_NAME.fullmatch(value)) and not (len(value) >= 16 and "_" not in value and re.search(r"\d", value))


def _is_harmless(key: str, value: str) -> bool:
    """A `token` may be a word of a vocabulary; a key is long and mixed."""
    return key.lower().endswith("token") and not _looks_random(value)


def mask_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with `***` for the values of secret-looking keys, and `without_secrets` of all other text, keys too."""
    known = _secrets_of_environment()

    def masked(value: Any) -> Any:
        match value:
            case str():
                return _masked(value, known)
            case Mapping():
                return {
                    masked(key): MASK if item is not None and SECRET_NAME.search(str(key)) else masked(item)
                    for key, item in value.items()
                }
            case list() | tuple():
                return [masked(item) for item in value]
            case _:
                return value

    return dict(masked(config))


def _looks_random(text: str) -> bool:
    return (
        len(text) >= 12 and not re.search(r"\s", text) and bool(re.search(r"\d", text) and re.search(r"[A-Za-z]", text))
    )


def _secrets_of_environment() -> list[str]:
    """The longest first, since one may be a part of another. A short value, or one of letters alone, may be a word."""
    found = [
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET and not value.isalpha()
    ]
    return sorted(found, key=len, reverse=True)


def _parts(key: str, text: str) -> list[str]:
    """The values of a sweep, where a name is wanted; what Hydra resolves later is left to `refuse_in_values`."""
    if not _HOLDS_NAME.search(key):
        return [text] if text.lower() != "null" else []
    parts = [part.strip().strip("'\"") for part in text.split(",")]
    return [part for part in parts if part.lower() != "null" and "${" not in part and "(" not in part]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    match node:
        case Mapping():
            for name, inner in node.items():
                if _KEY.search(str(name)):
                    yield key or "a key of the configuration", str(name)
                yield from _leaves(inner, f"{key}.{name}" if key else str(name))
        case list() | tuple():
            for number, inner in enumerate(node):
                yield from _leaves(inner, f"{key}[{number}]")
        case str() | int() | float():
            yield key, str(node)
