"""What people look at: annotated frames, charts and an HTML report.

Everything here draws the plain results of `formats/results.py`, without torch or detectron2.
`charts` is not imported here: matplotlib takes a moment to load, and drawing does without.
"""

from .report import VideoSection, write_report

__all__ = ["VideoSection", "write_report"]
