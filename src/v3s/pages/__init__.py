"""Pages: numbers and pixels in, one self-contained HTML file out. Knows no task and no network."""
