"""Hydra finds plugins by this package's place; the code is in `sweeper`."""
