"""File to pixels: exact frames, projective maps, one resampling. Knows neither labels nor networks."""
