"""A discrete-event model of one training run on many GPUs (`python -m scripts.scale_model`, docs/scale-model.md)."""
