"""The guarantees for runs and videos, verified by breaking them; one command for each."""
