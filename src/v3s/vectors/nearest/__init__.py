"""The rows most similar to a query: by comparing all, or by an approximate index."""
