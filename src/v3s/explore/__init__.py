"""Looking at a collection of vectors: a map, clusters, near-duplicates, outliers, and what to label next."""
