"""What turns played episodes into better weights: batches, losses' gradients, the optimiser, imitation."""
