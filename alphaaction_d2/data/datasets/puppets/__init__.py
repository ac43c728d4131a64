"""Puppets: generated videos in which each idea of the papers is needed."""
