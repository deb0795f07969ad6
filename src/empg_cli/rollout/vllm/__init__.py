"""Sampling by servers of vLLM, which are given the weights that learn after every update."""
