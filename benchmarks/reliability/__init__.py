"""What is promised of runs and of videos, proved by breaking them; one command each."""
