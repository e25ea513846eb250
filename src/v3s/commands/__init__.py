"""The commands from a folder of videos to a trained network."""
