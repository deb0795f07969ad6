"""A folder to the Hugging Face Hub: private unless told otherwise, with a token from the environment alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empg_cli.config.secrets import without_secrets
from empg_cli.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"
ENDPOINT = "HF_ENDPOINT"
"""In the environment: another server than huggingface.co, as for all of its tools."""
PROBE_S, SILENT_S = 20.0, 120.0
"""Seconds that the Hub may be silent before all work, and while it takes the files."""
WEIGHTS = (
    *("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"),
    *("adapter_model.*", "adapter_config.json"),
)
"""Files at the top of a repository that those of another export would stand beside and be read with."""
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class HubError(UserError):
    """The Hub did not take it; the message says why and what to do."""


def check_repo(repo: str) -> None:
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise HubError(f"hub={repo} is no repository: give owner/name")


def token() -> str:
    """
    Raises:
        HubError: there is none. A login kept by `hf auth login` is not taken: what is published is said each time.
    """
    if found := os.environ.get(TOKEN, "").strip():
        return found
    raise HubError(f"pushing needs a token with write access in the environment variable {TOKEN}")


def files(folder: Path) -> Iterator[tuple[str, int]]:
    """(path in the repository, bytes) of all that would be pushed, in order."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), path.stat().st_size


def probe() -> None:
    """Ask the Hub whose the token is, before there is any work.

    Raises:
        HubError: no token, no answer, or one that refuses it.
    """
    with _asking("the Hub could not be asked", token(), PROBE_S) as api:
        api.whoami()


def push(folder: Path, repo: str, *, private: bool, message: str) -> tuple[str, bool]:
    """Make the repository if there is none, and commit the folder's files to it, in the place of weights that it has.

    Returns:
        The address of the commit, and whether the repository is private.

    Raises:
        HubError: no token, no access, no answer, or the repository is public and `private` was asked for.
    """
    check_repo(repo)
    with _asking(f"{repo} could not be pushed", token(), SILENT_S) as api:
        api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        is_private = api.repo_info(repo, repo_type="model").private is not False
        if private and not is_private:
            raise HubError(f"{repo} is there already and public: add private=false if that is what you want")
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, repo_type="model", delete_patterns=list(WEIGHTS)
        )
    return str(done.commit_url), is_private


@contextmanager
def _asking(failed: str, key: str, patience_s: float) -> Iterator[HfApi]:
    """The Hub, with a bound on its silences: its client has none.

    Args:
        failed: begins what is said of an error.
    """
    from huggingface_hub import HfApi, get_session  # transformers brings it
    from huggingface_hub.errors import HfHubHTTPError

    transport_error: Any = HfHubHTTPError.__bases__[0]  # of the HTTP client at hand: connections and time-outs too
    try:
        get_session().timeout = patience_s
        yield HfApi(endpoint=os.environ.get(ENDPOINT) or None, token=key)
    except (transport_error, OSError, ValueError) as error:
        said = str(error).replace(key, "***").strip().splitlines() or [type(error).__name__]
        raise HubError(f"{failed}: {without_secrets(said[0])}") from None
