"""What a run must hold after whatever happens to it, and what makes it happen."""
