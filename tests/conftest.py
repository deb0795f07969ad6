"""Every test runs without network, login or the user's settings, and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

# Before torch or wandb are imported anywhere: one thread a process, no hub, no uploads.
os.environ.update(
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    NO_COLOR="1",
    COLUMNS="120",
)
# Processes that tests start keep what they have compiled: torch and transformers take ten seconds otherwise, each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
for name in ("ALFWORLD_DATA", "WEBSHOP_DATA", "WANDB_API_KEY", "HYDRA_FULL_ERROR", "FORCE_COLOR", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)

REPOSITORY = Path(__file__).resolve().parents[1]
# Processes that tests start find empg as this one does.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH")]))


NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for thousands of homes: `mktemp` looks at all that were made before."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def own_home(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login, cache or shell start-up file of the user's is read or written."""
    home = homes / str(next(NUMBERS))
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))


@pytest.fixture(scope="session")
def official_data() -> Path:
    """Folder with alfworld/, webshop/ and deepsearch/: EMPG_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("EMPG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"official data not found in {folder}: set EMPG_TEST_DATA to a folder with alfworld/")
    return folder
