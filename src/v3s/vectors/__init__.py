"""Collections of vectors: the commands embed, merge, index and search."""
