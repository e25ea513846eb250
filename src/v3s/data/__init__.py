"""Which videos: folders, list files, official splits; a scan of what the files hold; clips of them as tensors."""
