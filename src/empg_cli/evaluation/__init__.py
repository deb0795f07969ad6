"""Playing a split to measure a policy, and comparing what was measured."""
