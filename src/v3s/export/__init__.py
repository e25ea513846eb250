"""Models to give away: as weights with a card, and as graphs for other programs."""
