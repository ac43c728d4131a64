"""What people look at: annotated frames, charts, tables and an HTML report.

Everything here takes plain numpy data classes (`results.py`), without torch or detectron2.
`charts` is not imported here: matplotlib takes a moment to load, and drawing does without.
"""

from .annotate import FrameAnnotator, annotate_frame, annotate_frames
from .drawing import DrawStyle, draw_persons, enlargement
from .report import VideoSection, write_report
from .results import ClassAP, KeyframeResult, PersonResult, VideoResult
from .results_io import (
    read_class_aps,
    read_evaluation,
    read_results_json,
    write_results_csv,
    write_results_json,
)
from .tracks import interpolate_persons, link_persons

__all__ = [
    "ClassAP",
    "DrawStyle",
    "FrameAnnotator",
    "KeyframeResult",
    "PersonResult",
    "VideoResult",
    "VideoSection",
    "annotate_frame",
    "annotate_frames",
    "draw_persons",
    "enlargement",
    "interpolate_persons",
    "link_persons",
    "read_class_aps",
    "read_evaluation",
    "read_results_json",
    "write_report",
    "write_results_csv",
    "write_results_json",
]
