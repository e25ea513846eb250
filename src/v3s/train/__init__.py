"""Training: steps, epochs, checkpoints and several processes. It is independent of the task."""
