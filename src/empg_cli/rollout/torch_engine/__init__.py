"""Sampling with the training model itself, in this process."""
