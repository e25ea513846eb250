"""Lists of videos: folders, list files and official splits."""
