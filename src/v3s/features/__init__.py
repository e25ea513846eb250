"""From a run's folder to a network, and from videos to vectors."""
