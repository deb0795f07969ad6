"""Answer metrics by hand: SQuAD normalisation, EM, F1, sub-EM, cover-EM."""

from __future__ import annotations

import pytest

from empg_cli.benchmarks.deepsearch.answers import all_metrics, normalise

# prediction, golds, em, f1, sub_em, cover_em. F1 = 2 * common / (len(prediction) + len(gold)) in tokens.
CASES = [
    ("Paris", ["Paris"], 1, 1.0, 1, 1),
    ("paris", ["Paris"], 1, 1.0, 1, 1),  # case
    ("  Paris \n", ["Paris"], 1, 1.0, 1, 1),  # spaces
    ("The Hague", ["Hague"], 1, 1.0, 1, 1),  # article
    ("a cat and an owl", ["cat and owl"], 1, 1.0, 1, 1),  # articles inside
    ("Athens", ["Athens, Greece"], 0, 2 / 3, 0, 0),  # 2*1/(1+2)
    ("Athens, Greece", ["Athens"], 0, 2 / 3, 1, 1),
    ("Theatre", ["atre"], 0, 0.0, 1, 0),  # "the" inside a word stays; a substring of letters is a sub-EM
    ("U.S.A.", ["USA"], 1, 1.0, 1, 1),  # punctuation is dropped, not replaced by a space
    ("well-known", ["wellknown"], 1, 1.0, 1, 1),
    ("well-known", ["well known"], 0, 0.0, 0, 0),
    ("Müller", ["Muller"], 0, 0.0, 0, 0),  # diacritics stay: a gold needs both spellings
    ("Muller", ["Müller", "Muller"], 1, 1.0, 1, 1),
    ("São Paulo", ["Sao Paulo"], 0, 0.5, 0, 0),  # 2*1/(2+2)
    ("“Paris”", ["Paris"], 0, 0.0, 1, 0),  # only ASCII punctuation is dropped
    ("yes", ["yes"], 1, 1.0, 1, 1),
    ("Yes.", ["yes"], 1, 1.0, 1, 1),
    ("yes it is", ["yes"], 0, 0.0, 1, 1),  # a closed answer gives no partial F1
    ("no", ["no way"], 0, 0.0, 0, 0),
    ("noanswer", ["answer"], 0, 0.0, 1, 0),
    ("1,234", ["1234"], 1, 1.0, 1, 1),  # a thousands separator is punctuation
    ("3.5", ["35"], 1, 1.0, 1, 1),  # and so is a decimal point: kept, because the field's numbers have it
    ("+1", ["1"], 1, 1.0, 1, 1),
    ("UTC-8", ["UTC+8"], 1, 1.0, 1, 1),
    ("1987", ["1988"], 0, 0.0, 0, 0),
    ("", ["Paris"], 0, 0.0, 0, 0),
    ("the", ["Paris"], 0, 0.0, 0, 0),  # empty after normalisation
    ("...", ["Paris"], 0, 0.0, 0, 0),
    ("Barack Hussein Obama", ["Barack Obama"], 0, 0.8, 0, 1),  # 2*2/(3+2)
    ("Obama, Barack", ["Barack Obama"], 0, 1.0, 0, 1),  # the same tokens in another order
    ("New New York", ["New York"], 0, 0.8, 1, 1),  # multiset: 2*2/(3+2); sets would give 1
    ("York", ["New York", "York City", "york"], 1, 1.0, 1, 1),  # the best gold counts
    ("London", ["Paris", "Rome"], 0, 0.0, 0, 0),
    ("the capital is Paris", ["Paris"], 0, 0.5, 1, 1),  # capital is paris: 2*1/(3+1)
    ("Paris or Rome", ["Paris"], 0, 0.5, 1, 1),
    ("北京", ["北京"], 1, 1.0, 1, 1),
]


@pytest.mark.parametrize(("prediction", "golds", "em", "f1", "sub_em", "cover_em"), CASES)
def test_metrics_by_hand(prediction: str, golds: list[str], em: int, f1: float, sub_em: int, cover_em: int) -> None:
    assert len(CASES) >= 30
    expected = {"em": em, "f1": pytest.approx(f1), "sub_em": sub_em, "cover_em": cover_em}
    assert all_metrics(prediction, golds) == expected


def test_no_gold_scores_nothing() -> None:
    assert all_metrics("Paris", []) == {"em": 0.0, "f1": 0.0, "sub_em": 0.0, "cover_em": 0.0}


def test_normalise_is_idempotent_on_the_table() -> None:
    for prediction, golds, *_ in CASES:
        for text in (prediction, *golds):
            assert normalise(normalise(text)) == normalise(text)
