"""HTML pages: turn numbers and pixels into one self-contained file, independent of tasks and networks."""
