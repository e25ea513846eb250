"""What features are good for: recognition, retrieval, similarity, visualisation and search (paper sections 4.3-4.6)."""
