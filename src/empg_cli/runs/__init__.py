"""The run folder: every writer and every reader of it."""
