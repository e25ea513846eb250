"""Millions of files: the unit of work, its rows as Parquet, and the engine that runs many of them."""
