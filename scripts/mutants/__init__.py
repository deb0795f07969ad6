"""Faults planted in a copy of the program, one at a time: a test suite that passes on one of them has a hole."""

from __future__ import annotations

from scripts.mutants.ahead import AHEAD
from scripts.mutants.algorithms import ALGORITHMS
from scripts.mutants.controls import CONTROLS
from scripts.mutants.evaluation import EVALUATION
from scripts.mutants.mutant import Mutant
from scripts.mutants.playing import PLAYING
from scripts.mutants.step_credit import STEP_CREDIT
from scripts.mutants.training import TRAINING
from scripts.mutants.updating import UPDATING

MUTANTS: tuple[Mutant, ...] = (
    *ALGORITHMS,
    *STEP_CREDIT,
    *CONTROLS,
    *UPDATING,
    *TRAINING,
    *AHEAD,
    *PLAYING,
    *EVALUATION,
)
