"""A folder to the Hugging Face Hub: private unless told otherwise, with a token from the environment alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from empg_cli.config.secrets import without_secrets
from empg_cli.errors import UserError

TOKEN = "HF_TOKEN"
ENDPOINT = "HF_ENDPOINT"
"""In the environment: another server than huggingface.co, as for all of its tools."""
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


def push(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Make the repository if there is none, and commit the folder's files to it; returns the address of the commit.

    Raises:
        HubError: no token, no access, or the repository is public and `private` was asked for.
    """
    check_repo(repo)
    key = token()
    from huggingface_hub import HfApi  # transformers brings it
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=os.environ.get(ENDPOINT) or None, token=key)
    try:
        api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        if private and api.repo_info(repo, repo_type="model").private is False:
            raise HubError(f"{repo} is there already and public: add private=false if that is what you want")
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, repo_type="model")
    except (HfHubHTTPError, OSError, ValueError) as error:
        said = str(error).replace(key, "***").strip().splitlines() or [type(error).__name__]
        raise HubError(f"{repo} could not be pushed: {without_secrets(said[0])}") from None
    return str(done.commit_url)
