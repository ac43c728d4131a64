"""Files of the outside world: what they look like, read with file, line and column of every error.

Nothing here knows detectron2 or torch.
"""
