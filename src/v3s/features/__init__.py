"""A run's folder -> a network -> vectors."""
