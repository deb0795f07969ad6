"""What two ranks do with groups that go on over updates, each with an engine of its own."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from empg_cli.ranks import Ranks
from empg_cli.rollout.engine import EngineLost
from empg_cli.signals import Interrupted, caught, held
from tests.support.ahead import SlowEngine, ahead, turns


class LostOnce(SlowEngine):
    """In group 1, which the second rank plays."""

    is_lost = False

    async def generate(self, prompt: Any, *, episode: Any, **options: Any) -> Any:
        completion = await super().generate(prompt, episode=episode, **options)
        if episode[1] == (1, 0) and not self.is_lost:
            self.is_lost = True
            raise EngineLost("nobody answers")
        return completion


def played_ahead(ranks: Ranks) -> dict[str, Tensor]:
    """Three updates: in the first the second rank's engine is lost; groups 2 and 3, one of each rank, stay behind in
    the first two, and group 3 comes in the third, too late. A signal to the second rank ends the fourth."""
    engine, found = LostOnce(), {}
    engine.held = turns(2) | turns(3)
    with suppress(Interrupted), caught(), held(), ahead(engine, ranks=ranks) as run:
        for update in range(3):
            if update == 2:
                engine.held = turns(2)
            trajectories = [replace(one, info={}) for one in run.play()]
            facts = trajectories, run.metrics, asdict(run.state), run.source._started
            assert all(other == facts for other in ranks.of_all(facts)), f"ranks differ after update {update}"
            found[f"trained {update}"] = torch.tensor([one.group for one in trajectories])
            found[f"stale {update}"] = torch.tensor(run.metrics["rollout/stale_groups"])
        found["episodes"] = torch.tensor(run.state.episodes)
        found["revived"] = torch.tensor(ranks.of_all(engine.revived))
        found["times group 2 was begun"] = torch.tensor(ranks.of_all(len(engine.draws.get((2, 0), []))))
        for rank, begun in enumerate(ranks.of_all(sorted(engine.begun))):
            found[f"begun by {rank}"] = torch.tensor(begun)
        engine.held = {turn for group in range(20) for turn in turns(group)}
        if not ranks.is_first:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            run.source.next(replace(run.state))
        except Interrupted as asked:
            found["signals"] = torch.tensor(ranks.of_all(asked.signum))
    return found
