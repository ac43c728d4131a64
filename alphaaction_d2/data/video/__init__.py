"""Videos: files, folders of pictures, folders of clips. The one room that knows the decoder."""

from .clip_folder import VIDEO_SUFFIXES
from .file import VideoWriter
from .reader import (
    VideoReader,
    find_videos,
    first_that_opens,
    is_video_folder,
    iterate_frames,
    probe_video,
    video_name,
)
from .sound import open_sound
from .source import VideoError, VideoInfo, hearing_warnings, one_line
