"""Porter's suffix stripper (Porter 1980, An algorithm for suffix stripping), as Lucene's PorterStemFilter applies it.

Two departures of Porter's own later code are in it (-bli becomes -ble, -logi becomes -log); Snowball's "porter" lacks
them, and search results then differ from Lucene's.
"""

from __future__ import annotations

_VOWELS = "aeiou"

# Longest suffix first where one ends with another: the first that fits decides.
_STEP_2 = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
)
_STEP_3 = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_STEP_4 = (
    *("ement", "ance", "ence", "able", "ible", "ment", "sion", "tion"),
    *("ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize", "al", "er", "ic", "ou"),
)


def stem(word: str) -> str:
    """The stem of a lower-case word; words of one or two letters stay."""
    if len(word) < 3:
        return word
    word = _participle(_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2)
    word = _replace(word, _STEP_3)
    return _final_letters(_drop_suffix(word))


def _plural(word: str) -> str:
    """Step 1a."""
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _participle(word: str) -> str:
    """Step 1b: -eed, -ed, -ing."""
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    cut = 2 if word.endswith("ed") else 3 if word.endswith("ing") else 0
    if not cut or not _has_vowel(word[:-cut]):
        return word
    word = word[:-cut]
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _ends_double(word):
        return word if word[-1] in "lsz" else word[:-1]
    if _measure(word) == 1 and _ends_cvc(word):
        return word + "e"
    return word


def _replace(word: str, table: tuple[tuple[str, str], ...]) -> str:
    """Steps 2 and 3."""
    for suffix, new in table:
        if word.endswith(suffix):
            base = word[: -len(suffix)]
            return base + new if _measure(base) > 0 else word
    return word


def _drop_suffix(word: str) -> str:
    """Step 4; of -sion and -tion only -ion goes."""
    for suffix in _STEP_4:
        if word.endswith(suffix):
            base = word[: -3 if suffix in ("sion", "tion") else -len(suffix)]
            return base if _measure(base) > 1 else word
    return word


def _final_letters(word: str) -> str:
    """Step 5: a last e, a last double l."""
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_cvc(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _shape(word: str) -> str:
    """`c` or `v` for each letter; y is a vowel after a consonant."""
    shape = []
    previous = "v"
    for position, letter in enumerate(word):
        if letter == "y":
            previous = "c" if position == 0 or previous == "v" else "v"
        else:
            previous = "v" if letter in _VOWELS else "c"
        shape.append(previous)
    return "".join(shape)


def _measure(word: str) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    return _shape(word).count("vc")


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _ends_double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _ends_cvc(word: str) -> bool:
    return len(word) > 2 and _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"
