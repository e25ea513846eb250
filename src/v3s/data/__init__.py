"""Videos as data: lists of videos, a scan of the files, and clips of the videos as tensors."""
