"""Decoding that does not wait for the host: tokens are drawn on the device and read on there, pass after pass.

On a GPU a pass over single tokens takes less time than launching its kernels one by one and asking what was drawn. So
the host sends ahead what a burst of passes needs (who goes on, the random numbers) and looks after the last of them. A
pass reads one token in each of the first slots, from tensors that stay where they are, so that it can be captured as a
CUDA graph and replayed. An idle slot reads too: it writes the column after its last, which is written again before
anything sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from empg_cli.model.decoder import has_standard_layers
from empg_cli.model.policy import Policy
from empg_cli.rollout.torch_engine.cache import EpisodeCache
from empg_cli.rollout.torch_engine.plans import SlotPlan
from empg_cli.rollout.torch_engine.sampling import sample

FEWEST_SLOTS = 8
"""Passes hold this many slots, twice, four times ... as many: one graph for each."""
COLUMNS = 512
"""Passes read a multiple of these columns: one graph for each."""
MOVING_FREQUENCIES = frozenset({"dynamic", "longrope"})
"""Rotary embeddings that ask the device for the longest position in every pass."""

Pass = Callable[[], None]
Capture = Callable[[Pass], Pass]
"""Makes of a pass one that does the same when called, without having run it."""


class Decoder:
    """Bursts of passes over one cache, as long as its tensors stay where they are."""

    def __init__(self, policy: Policy, cache: EpisodeCache, *, most_passes: int, capture: Capture | None) -> None:
        """
        Args:
            most_passes: in one burst.
            capture: None runs each pass as it is written.
        """
        device, slots = policy.device, cache.slots
        self.shape = cache.slots, cache.columns
        self._policy, self._cache, self._capture = policy, cache, capture
        self._slot_P = torch.arange(slots, device=device)
        self._zero_P = torch.zeros(slots, dtype=torch.long, device=device)
        self._token_P, self._position_P, self._moves_P = (torch.zeros_like(self._zero_P) for _ in range(3))
        self._number = torch.zeros(1, dtype=torch.long, device=device)
        """Of the pass within its burst."""
        self._uniform_KP = torch.zeros(most_passes, slots, dtype=torch.float64, device=device)
        self._drawn_3KP = torch.zeros(3, most_passes, slots, dtype=torch.float64, device=device)
        self._passes: dict[tuple[int, int, float, float], Pass | None] = {}

    def slots(self, highest: int) -> int:
        """How many slots a pass holds that reaches up to this one."""
        slots = FEWEST_SLOTS
        while slots <= highest:
            slots *= 2
        return min(slots, self._cache.slots)

    def burst(
        self,
        token_P: np.ndarray,
        position_P: np.ndarray,
        moves_P: np.ndarray,
        uniform_KP: np.ndarray,
        temperature: float,
        top_p: float,
    ) -> np.ndarray:
        """K passes over the first P slots.

        Args:
            token_P, position_P: what the first pass reads, and where; for an idle slot any token, and the column after
                its last.
            moves_P: 1 where a pass reads what the one before has drawn, 0 in idle slots.
            uniform_KP: numbers in [0, 1), one for each draw.

        Returns:
            Token, log-prob and entropy of each draw: float64 [3, K, P]. Those of idle slots mean nothing.
        """
        passes, slots = uniform_KP.shape
        whole = -(-(int(position_P.max()) + passes) // COLUMNS) * COLUMNS
        key = slots, min(whole, self._cache.columns), temperature, top_p
        for buffer, sent in ((self._token_P, token_P), (self._position_P, position_P), (self._moves_P, moves_P)):
            buffer[:slots] = torch.from_numpy(sent)
        self._uniform_KP[:passes, :slots] = torch.from_numpy(uniform_KP)
        self._number.zero_()
        for _ in range(passes):
            self._run(*key)
        drawn: np.ndarray = self._drawn_3KP[:, :passes, :slots].cpu().numpy()  # waits for the device
        return drawn

    def _run(self, slots: int, columns: int, temperature: float, top_p: float) -> None:
        """A pass. The first of its kind runs as it is written, since it sets up what a capture cannot."""
        key = slots, columns, temperature, top_p

        def as_written() -> None:
            self._pass(*key)

        if self._capture is None or key not in self._passes:
            self._passes[key] = None
            as_written()
            return
        captured = self._passes[key]
        if captured is None:
            captured = self._passes[key] = self._capture(as_written)
        captured()

    def _pass(self, slots: int, columns: int, temperature: float, top_p: float) -> None:
        """Reads and writes the same tensors each time, and asks the device for nothing."""
        token_P, position_P = self._token_P[:slots], self._position_P[:slots]
        self._cache.aim(SlotPlan(position_P, columns))
        logit_PV = self._policy.lm(
            token_P[None],
            (self._zero_P[:slots], self._slot_P[:slots]),
            position_ids=position_P[None],
            episodes=self._cache,
        )
        uniform_P = self._uniform_KP[:, :slots].index_select(0, self._number)[0]
        drawn = sample(logit_PV, uniform_P, temperature, top_p)
        drawn_3P = torch.stack([part.double() for part in drawn])
        self._drawn_3KP[:, :, :slots].index_copy_(1, self._number, drawn_3P[:, None])
        token_P.copy_(drawn[0])
        position_P += self._moves_P[:slots]
        self._number += 1


def capture_of(policy: Policy) -> Capture | None:
    """How the passes of one decoder are captured, None where they cannot be: on a CPU, and where a layer may ask the
    device for something.

    Graphs keep the addresses of weights. They live as long as a cache, that is within a rollout, in which weights stay.
    """
    if policy.device.type != "cuda" or not has_standard_layers(policy.model.config):
        return None
    return None if policy.model.base_model.rotary_emb.rope_type in MOVING_FREQUENCIES else _cuda_graphs()


def _cuda_graphs() -> Capture:
    """Captures that share memory, since no two of them run at once. Memory whose graphs are all gone takes no new ones:
    each decoder has its own."""
    pool: Any = torch.cuda.graph_pool_handle()

    def capture(run: Pass) -> Pass:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            run()
        return graph.replay

    return capture
