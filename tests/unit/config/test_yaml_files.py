"""YAML of people: bounded, and one sentence with file and line where it is broken. Every byte may stand in it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from empg_cli.config.command_line import check_command_line
from empg_cli.config.compose import compose_job, hydra_session, parse
from empg_cli.config.problems import ConfigError
from empg_cli.config.schema import TrainConfig
from empg_cli.config.yaml_files import DEEPEST, MOST_BYTES, MOST_NODES, read_mapping
from empg_cli.errors import DataError


def read(tmp_path: Path, content: str | bytes) -> dict:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_mapping(path)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, DEEPEST + 1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "line 5: holds too much"),
        (CHAIN, "is nested too deeply"),
        ("a: &a {b: *a}\n", "line 1: holds an alias of itself"),
        ("a: " + "[" * 5000, "is nested too deeply"),
        ("a: " + "[" * DEEPEST + "]" * DEEPEST, "is nested too deeply"),
        ("a: " + "x" * MOST_BYTES, "is too large"),
        ("a: 1\nb: {c: 1, c: 2}\n", "line 2: the key 'c' stands there twice"),
        ("a: 1\n\tb: 2\n", "line 2, column 1: is not readable YAML"),
        ("a: [1\nb: 2\n", "line 2, column 2: is not readable YAML"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1, column 4: is not readable YAML"),
        ("a: !!set {b}\n", "line 1, column 4: is not readable YAML"),
        ("a: !!binary aGk=\n", "line 1, column 4: is not readable YAML"),
        ("a: !!timestamp 2026-01-01\n", "line 1, column 4: is not readable YAML"),
        ("a: *nobody\n", "line 1, column 4"),
        ("a: !!int x\n", "is not readable YAML"),
        ("a: " + "9" * 5000, "is not readable YAML"),
        ("a: 1\n---\nb: 2\n", "is not readable YAML"),
        ("- 1\n", "holds list"),
        ("text\n", "holds str"),
        (b"a: 1\nb: \xe4\n", "line 2: is not UTF-8 text (byte 8)"),
        ("a: 1\n".encode("utf-16"), "is not UTF-8 text"),
        (b"a: 1\nb: \x00\n", "line 2: is not YAML: it holds the character"),
    ],
)
def test_what_is_broken_is_said_with_its_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path, content)
    assert str(raised.value).startswith(str(tmp_path / "mine.yaml"))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("a: 2026-01-01\n", {"a": "2026-01-01"}),
        ("\ufeffa: 1\n", {"a": 1}),
        ("a: &a {b: 1e-5}\nc: {<<: *a, d: 2}\n", {"a": {"b": 1e-5}, "c": {"b": 1e-5, "d": 2}}),
        ("a: " + "[" * (DEEPEST - 3) + "]" * (DEEPEST - 3), None),
    ],
)
def test_what_only_looks_odd_is_read(tmp_path: Path, content: str, values: dict | None) -> None:
    found = read(tmp_path, content)
    assert values is None or found == values


def test_as_much_as_is_allowed_is_read(tmp_path: Path) -> None:
    some = MOST_NODES // 2
    assert len(read(tmp_path, f"a: &a [{', '.join('1' * (some - 5))}]\nb: *a\n")["b"]) == some - 5


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_mapping(tmp_path)


@given(st.one_of(st.binary(max_size=200), st.text("[]{}&*!:-?|>'\"#%@, \n\tab1.<~", max_size=60).map(str.encode)))
def test_any_bytes_are_a_mapping_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with suppress(DataError):
        assert isinstance(read_mapping(path), dict)


def refusal(folder: Path, content: str, *words: str) -> str:
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / "mine.yaml").write_text(content)
    with pytest.raises((ConfigError, DataError)) as raised:
        check_command_line("train", ["experiment=mine", *words], TrainConfig, config_dir=str(folder))
    return str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "mine.yaml, line 6: holds too much"),
        ("trainer: {lr: [1\nseed: 3\n", "mine.yaml, line 3, column 5"),
        ("defaults: 3\n", "defaults must be a list"),
        ("defaults: [/algo: nope]\n", "algo: has no option 'nope'; choose one of: aem,"),
        ("hydra: 3\n", "experiment/mine"),
        ("seed: ${oc.env:A\n", "BRACE_CLOSE"),
        ("seed: ${nobody}\n", "seed: Interpolation key 'nobody' not found"),
    ],
)
def test_hydra_reads_a_file_of_ones_own_only_after_the_check(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path, f"# @package _global_\n{content}")


def test_a_file_without_its_first_line_is_told_so(tmp_path: Path) -> None:
    assert "# @package _global_" in refusal(tmp_path, "seed: 3\n")


def test_a_folder_may_be_named_as_people_are(tmp_path: Path) -> None:
    folder = tmp_path / 'o\'brien, the "2nd" = [x]'
    folder.mkdir()
    assert "seed: must be a valid integer" in refusal(folder, "# @package _global_\nseed: 1\n", "seed=x")


def test_shipped_files_are_parsed_once_and_those_of_ones_own_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiment").mkdir()
    mine = tmp_path / "experiment" / "mine.yaml"

    def composed(seed: int) -> int:
        mine.write_text(f"# @package _global_\nseed: {seed}\n")
        with hydra_session("train", str(tmp_path)) as session:
            cfg, _ = compose_job(parse(["experiment=mine"], session.loader)[0], TrainConfig, session)
            cfg.seed += 100  # what is composed is nobody else's
        return int(cfg.seed)

    composed(1)
    read: list[str] = []
    real = OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: read.append(file.name) or real(file))
    assert [composed(2), composed(3)] == [102, 103]
    assert {Path(name) for name in read} == {mine}
