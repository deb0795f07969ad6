"""transformers patches its own classes while it loads a model (transformers.initialization: no_tie_weights, and more),
for the whole process: a model made meanwhile in another thread stays untied, and of two loads at once the second may
leave the patch behind for good."""

from __future__ import annotations

import threading

ONE_AT_A_TIME = threading.Lock()
"""Held around every construction of a policy's network."""
