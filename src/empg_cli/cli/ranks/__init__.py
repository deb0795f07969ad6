"""One run on several processes: started and watched by the command (`dist=node`), or by srun or torchrun."""
