"""Which videos: folders, list files and official splits."""
