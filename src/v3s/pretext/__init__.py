"""The pretext task of paper section 3: labels that name maps, and plans that draw them."""
