"""What people install: a wheel with conf/ and the tables in it, that works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from empg_cli import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
FROM_MAKE_TEST = ("PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "TORCH_BACKEND", "UV_FIND_LINKS")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in FROM_MAKE_TEST}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the tracked and untracked sources as they are, without build isolation and so without a network."""
    pytest.importorskip("hatchling", reason="needs hatchling: make test installs it")
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_whole_configuration(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "conf").rglob("*.yaml")}
    assert {f"empg_cli/{name}" for name in configs} <= inside
    sources = (path for path in (REPOSITORY / "src" / "empg_cli").rglob("*") if "__pycache__" not in path.parts)
    assert {path.relative_to(REPOSITORY / "src").as_posix() for path in sources if path.is_file()} <= inside
    assert "empg_cli/py.typed" in inside  # what "Typing :: Typed" says
    tops = {name.split("/")[0] for name in inside}
    assert {top for top in tops if not top.startswith("empg_cli")} <= {"hydra_plugins"}


def installed(wheel: Path, folder: Path) -> tuple[Path, Path]:
    """The Python of an environment of its own with the wheel, and its folder of packages.

    Its dependencies are those of this environment; the checkout is not on its path.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    ours = [path for path in sys.path if Path(path).name == "site-packages"]
    # Plain folders on the path: their .pth files, and with them an editable checkout, are not followed.
    (site / "dependencies.pth").write_text("\n".join(ours) + "\n")
    zipfile.ZipFile(wheel).extractall(site)
    return python, site


@pytest.mark.slow
def test_the_installed_wheel_composes_and_plays_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    python, site = installed(wheel, tmp_path)
    shown = yaml.safe_load(run(python, "-m", "empg_cli", "train", "--cfg", "job", "algo=dapo_empg", cwd=tmp_path))
    assert shown["algo"]["name"] == "dapo_empg"
    where = run(python, "-m", "empg_cli", "train", "--info", "searchpath", cwd=tmp_path)
    assert f"file://{site.resolve()}/empg_cli/conf" in where
    played = run(python, "-m", "empg_cli", "eval", "policy=expert", "benchmark.eval_tasks=2", cwd=tmp_path)
    assert "100.0%" in played


@pytest.mark.long
def test_the_installed_wheel_trains_evaluates_and_reports_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    python, site = installed(wheel, tmp_path)

    def empg(*words: str) -> str:
        return run(python, "-m", "empg_cli", *words, cwd=tmp_path / "here")

    trained = empg("train", "experiment=smoke", "run_dir=run", "logger.wandb.mode=disabled")
    assert "2 of 2" in trained and "generated" in trained
    assert "success" in empg("eval", "run=run")
    empg("report", "run")
    page = (tmp_path / "here" / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "actor/kl_loss" in page or "KL" in page
    assert str(site) in empg("doctor")
    assert "make " not in empg("doctor")  # there is no Makefile here
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"run", "runs"}  # runs/eval


def test_the_source_archive_holds_what_builds_tests_and_documents(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling: make test installs it")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=REPOSITORY)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("pyproject.toml", "Makefile", "constraints.txt", "NOTICE", "mkdocs.yml", "docs/quickstart.md",
              "conf/train.yaml", "tests/conftest.py", "src/empg_cli/py.typed", "Dockerfile", "SECURITY.md",
              "examples/study_in_a_loop.py")  # fmt: skip
    assert set(wanted) <= inside


def test_one_version_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == __version__ == citation["version"]


def test_the_make_targets_that_the_readme_promises() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make, which `make test` has")
    shown = run(make, "help", cwd=REPOSITORY)
    for target in ("demo", "test", "check", "lint", "types", "format", "build", "docs", "clean"):
        assert f"make {target} " in shown


@pytest.mark.parametrize(
    ("find_links", "wheel_name", "expected"),
    [
        ("", None, "--torch-backend=cpu"),
        ("{folder}", None, "--torch-backend=cpu"),
        ("{folder}", "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", ""),
        ("https://example.org/wheels", None, "--torch-backend=cpu"),
    ],
)
def test_make_never_takes_a_cuda_torch_unasked(
    tmp_path: Path, find_links: str, wheel_name: str | None, expected: str
) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make, which `make test` has")
    if wheel_name:
        (tmp_path / wheel_name).touch()
    given = f"PIP_FIND_LINKS={find_links.format(folder=tmp_path)}"
    command = ["env", given, make, "-n", "install", f"VENV={tmp_path}/env"]
    install = next(line for line in run(*command, cwd=REPOSITORY).splitlines() if "torch==" in line)
    assert ("--torch-backend" in install) is bool(expected)
    assert expected in install
    chosen = run(*command, "TORCH_BACKEND=auto", cwd=REPOSITORY)
    assert ("--torch-backend=auto" in chosen) is bool(expected)
