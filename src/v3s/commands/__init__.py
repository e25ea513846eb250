"""The road from a folder of videos to a trained network."""
