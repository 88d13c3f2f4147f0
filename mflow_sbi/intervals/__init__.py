"""Maximum likelihood, profiles, intervals with coverage, Fisher information."""
