"""A causal language model as a policy: hidden states, log-probs and entropies of the tokens asked for."""
