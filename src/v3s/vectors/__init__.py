"""Collections of vectors: embed, merge, index, search."""
