"""The live page of a collection: looking, searching, marking."""
