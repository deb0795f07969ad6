"""A warm start that is stopped goes on where it was: weights and optimiser after some step, in one file."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from empg_cli.disk import refusal
from empg_cli.files import replacing
from empg_cli.model.policy import Policy

log = logging.getLogger(__name__)

SAVE_EVERY_S = 300.0
MOST_OF_THE_TIME = 0.05
"""Share of the time that saving may take: of a large model, the state is tens of gigabytes."""


class Course:
    """Where a warm start is. Every step depends on its number and the weights alone, so going on is bit for bit.

    done: steps that the state has behind it; 0 where there is none to go on from.
    """

    def __init__(self, path: Path, key: str, device: torch.device) -> None:
        """
        Args:
            path: of the state.
            key: of all that the weights after the warm start depend on; the state of another one is not taken.
        """
        self._path, self._key = path, key
        self._due = time.monotonic() + SAVE_EVERY_S
        self._state = self._found(device) if path.is_file() else None
        self.done = int(self._state["step"]) if self._state else 0

    def _found(self, device: torch.device) -> dict[str, Any] | None:
        try:
            # Mapped, a device takes it tensor by tensor; a CPU's optimiser would go on in the mapped file.
            state: dict[str, Any] = torch.load(
                self._path, map_location="cpu", mmap=device.type != "cpu", weights_only=True
            )
            is_ours = state["key"] == self._key
        except Exception as error:
            log.warning("the warm start begins anew: %s cannot be read (%s)", self._path, error)
            return None
        if not is_ours:
            log.warning("the warm start begins anew: %s is of other settings, data or code", self._path)
            return None
        log.info("the warm start goes on after step %d", state["step"])
        return state

    def restore(self, policy: Policy, optimizer: torch.optim.Optimizer) -> int:
        """Put weights and optimiser where the state has them, once; returns `done`."""
        if (state := self._state) is not None:
            with torch.no_grad():
                for name, parameter in _trained(policy).items():
                    parameter.copy_(state["model"][name])
            if policy.masters is not None:
                policy.masters.refresh()
            optimizer.load_state_dict(state["optimizer"])
        self._state = None
        return self.done

    def save_if_due(self, policy: Policy, optimizer: torch.optim.Optimizer, done: int) -> None:
        if time.monotonic() >= self._due:
            self.save(policy, optimizer, done)

    def save(self, policy: Policy, optimizer: torch.optim.Optimizer, done: int) -> None:
        """Where the disk refuses, that is said: the warm start goes on, and the state before stays."""
        began = time.monotonic()
        state = {
            "key": self._key,
            "step": done,
            "model": {name: parameter.detach() for name, parameter in _trained(policy).items()},
            "optimizer": optimizer.state_dict(),
        }
        try:
            with replacing(self._path) as temporary, temporary.open("wb") as file:
                torch.save(state, file)
        except Exception as error:
            if not (isinstance(error, OSError) or refusal(error)):
                raise
            log.warning("the state of the warm start after step %d is not kept: %s", done, error)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(SAVE_EVERY_S, took / MOST_OF_THE_TIME)

    def forget(self) -> None:
        """There is nothing to go on with any more."""
        self._path.unlink(missing_ok=True)


def _trained(policy: Policy) -> dict[str, Parameter]:
    """Without frozen weights, which are no part of the state."""
    return {name: part for name, part in policy.trained.named_parameters() if part.requires_grad}
