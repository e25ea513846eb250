"""Files at URLs, as files of a folder in the user's cache that arrive when they are opened."""
