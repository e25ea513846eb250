"""The pretext task (paper section 3): labels that stand for maps, and plans that draw clips for them."""
