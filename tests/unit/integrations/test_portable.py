"""What a published card says of this machine's folders: their last names."""

from __future__ import annotations

from typing import Any

import pytest

from empg_cli.integrations.portable import portable, portable_word


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.path=/home/alice/models/m", "model.path=…/m"),
        ("model.path='/home/alice/my project'", "model.path='…/my project'"),
        ('model.path="/home/alice/it\'s, mine/m"', 'model.path="…/m"'),
        ("model.path=/home/alice/my project/m", "model.path=…/m"),
        ("benchmark.data_dir=/data/alice/split=a/x", "benchmark.data_dir=…/x"),
        ("files=[/home/alice/a,'/home/alice/b c',d/e]", "files=[…/a,'…/b c',d/e]"),
        ("+x={path: /home/alice/a, other:~/b, n: 1}", "+x={path: …/a, other:…/b, n: 1}"),
        ("logger.mlflow.uri=sqlite:////home/alice/mlflow.db", "logger.mlflow.uri=sqlite:…/mlflow.db"),
        ("hydra.searchpath=[file:///home/alice/conf]", "hydra.searchpath=[file:…/conf]"),
        ("hydra.searchpath=[file://~/alice/conf]", "hydra.searchpath=[file:…/conf]"),
        ("model.path=../alice/m", "model.path=…/m"),
        ("model.path=models/../../alice/m", "model.path=…/m"),
        ("model.path=~alice/m", "model.path=…/m"),
        (r"model.path=/home/alice\,bob/m", "model.path=…/m"),
        ("x=choice(/home/alice/a,/home/alice/b)", "x=choice(…/a,…/b)"),
        ("endpoint.base_url=http://127.0.0.1:8000/v1/x", "endpoint.base_url=http://127.0.0.1:8000/v1/x"),
        ("model.path=Qwen/Qwen2.5-0.5B", "model.path=Qwen/Qwen2.5-0.5B"),
        ("algo.k=1", "algo.k=1"),
        ("~logger.csv", "~logger.csv"),
        ("benchmark.data_dir=data/alfworld", "benchmark.data_dir=data/alfworld"),
        ("notes='a/b and 1 / 2 ... and so on'", "notes='a/b and 1 / 2 ... and so on'"),
    ],
)
def test_words_of_a_command(word: str, said: str) -> None:
    assert portable_word(word) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("/home/alice/my, project (old)/m", "…/m"),
        ("sqlite:////home/alice/mlflow.db", "sqlite:…/mlflow.db"),
        ("file:///home/alice/mlruns", "file:…/mlruns"),
        ("sqlite:///mlflow.db", "sqlite:…/mlflow.db"),
        ("compare with /home/alice/runs/a", "compare with …/a"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ({"a": ["~/x/y", 3, None]}, {"a": ["…/y", 3, None]}),
    ],
)
def test_values_of_a_configuration(value: Any, said: Any) -> None:
    assert portable(value) == said
