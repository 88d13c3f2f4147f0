"""Questions about the learned surface: is an event on it?"""
