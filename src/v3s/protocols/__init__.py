"""The paper's sections 4.3 to 4.6, one command per file."""
