"""How weights move: steps, epochs, checkpoints, processes. Knows no task."""
