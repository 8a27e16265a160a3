"""Groups of episodes at once, and their records on disk."""
