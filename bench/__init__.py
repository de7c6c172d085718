"""Speed, always beside the floor that the same work costs bare."""
