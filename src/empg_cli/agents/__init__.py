"""What a policy reads and how its answers are understood: token ids in, token ids out."""
