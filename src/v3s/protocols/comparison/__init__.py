"""What `v3s compare` finds: the rows of its table, the verdict, and the page."""
