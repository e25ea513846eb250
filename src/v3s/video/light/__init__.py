"""What the values of pixels mean to the eye: how bright a video is, and which of more than 256 values are shown."""
