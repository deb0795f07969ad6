"""EMPG inside verl (tried with 0.9.1): our credit, our episodes, and the files that hand a configuration over.

What is named of verl here was read in its source, `verl/trainer/ppo/v1` and `verl/experimental/agent_loop`.
"""

NAME = "empg"
"""Of the trainer, the estimator and the agent loop in verl's registries."""
SETTINGS = "empg"
"""Key below `trainer.v1`: `config`, the file of a training configuration, and `prompt_date`."""
STEPS = "empg_steps"
"""Key of an output's `extra_fields`: what its steps were, a `StepFacts` each."""
INSTALL = "verl[vllm]==0.9.1"
