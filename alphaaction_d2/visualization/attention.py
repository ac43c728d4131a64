"""What a model looked at, as plain data, and its attention maps over the keyframe (IGMN, Fig. 5).

Shape letters: H W picture, K side of a map, J persons of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..formats.results import PersonResult
from .contact_sheet import Tile, contact_sheet, scale_into
from .palette import RGB
from .text import format_time

# A view shows so many times the width and height of the box with the map.
_CONTEXT = 2.0
_PLACE = (440, 330)  # largest width and height of a view in pixels


@dataclass(frozen=True, eq=False)
class AttendedMemory:
    """How one person shares one attention among the persons in the memory.

    Attributes:
        name: of the attention, such as "layer 1".
        step: seconds from one second that it sees to the next.
        times: (J,) seconds of the video.
        person_ids: (J,) who was there, -1 where unknown.
        weights: (J,) at least 0; with `elsewhere` they add up to 1, if there is anybody.
        elsewhere: the share that falls on places where nobody is.
    """

    name: str
    step: float
    times: np.ndarray
    person_ids: np.ndarray
    weights: np.ndarray
    elsewhere: float = 0.0


@dataclass(frozen=True, eq=False)
class PersonAttention:
    """What was looked at for one person of a keyframe.

    Attributes:
        person: who.
        rgb: the colour of this identity.
        map_box: (4,) XYXY pixels, what the maps cover.
        maps: name -> (K, K) in [0, 1], rows first.
        memory: one entry per attention to the memory.
    """

    person: PersonResult
    rgb: RGB
    map_box: np.ndarray
    maps: Mapping[str, np.ndarray]
    memory: Sequence[AttendedMemory]

    @property
    def name(self) -> str:
        return f"#{self.person.person_id}" if self.person.person_id >= 0 else "person"

    @property
    def label(self) -> str:
        """Identity and best action."""
        return " ".join([self.name, *(f"{n} {s:.0%}" for n, s in self.person.actions[:1])])


@dataclass(frozen=True, eq=False)
class KeyframeAttention:
    """Everybody of one keyframe; `timestamp` in seconds from the video's first frame."""

    timestamp: float
    persons: Sequence[PersonAttention]


def attention_map_sheet(
    picture: np.ndarray, attention: KeyframeAttention, *, max_persons: int = 6
) -> np.ndarray:
    """One row a person: the keyframe around the person, and each map laid over it.

    All maps of a sheet share one scale, from their smallest to their largest value (but no
    difference below 0.1 fills it); below each are its own smallest and largest.

    Args:
        picture: (H, W, 3) uint8 RGB, the keyframe.
        attention: with boxes in pixels of `picture`.
        max_persons: rows, the first persons.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: there is nobody, or there are no maps.
    """
    shown = [person for person in attention.persons if person.maps][:max_persons]
    if not shown:
        raise ValueError(f"no attention maps at {attention.timestamp:g} s")
    values = np.concatenate([x.ravel() for person in shown for x in person.maps.values()])
    limits = (min(values.min(), values.max() - 0.1), values.max())
    tiles = []
    for person in shown:
        tiles += _row(picture, attention, person, limits)
    return contact_sheet(tiles, columns=1 + len(shown[0].maps), tile_width=_PLACE[0])


def _row(
    picture: np.ndarray,
    attention: KeyframeAttention,
    person: PersonAttention,
    limits: tuple[float, float],
) -> list[Tile]:
    view = view_around(person.map_box, picture.shape[1], picture.shape[0])
    crop = scale_into(picture[view[1] : view[3], view[0] : view[2]], _PLACE)
    size = np.array(crop.shape[1::-1])
    scale = np.tile(size / (view[2:] - view[:2]), 2)  # with what rounding made of it
    everybody = [person, *(other for other in attention.persons if other is not person)]
    boxes = (np.array([x.person.box for x in everybody]) - np.tile(view[:2], 2)) * scale
    inside = (np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0) > 1).all(axis=1)
    people = [x for x, visible in zip(everybody, inside) if visible]
    labels = [[x.label if x is person else x.name] for x in people]
    time = f"{format_time(attention.timestamp)}  {person.label}"
    tiles = [Tile(crop, boxes[inside], labels, time, [x.rgb for x in people])]
    own = boxes[:1][inside[:1]]
    for name, values in person.maps.items():
        title = f"{name}, {values.min():.2f} to {values.max():.2f}"
        stretched = (values - limits[0]) / (limits[1] - limits[0])
        heated = overlay_map(crop, (person.map_box - np.tile(view[:2], 2)) * scale, stretched)
        tiles.append(Tile(heated, own, [[]] * len(own), title, [person.rgb]))
    return tiles


def view_around(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of a picture to show of a box: (4,) whole pixels, of the picture's proportions.

    Args:
        box: (4,) XYXY.
        width, height: of the picture.
    """
    share = float((_CONTEXT * (box[2:] - box[:2]) / (width, height)).max())
    size = np.ceil(np.clip(share, 0.15, 1.0) * np.array([width, height])).astype(np.int64)
    start = np.round((box[:2] + box[2:] - size) / 2).astype(np.int64)
    start = np.clip(start, 0, np.array([width, height]) - size)
    return np.concatenate([start, start + size])


def overlay_map(picture: np.ndarray, box: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a map over the part of a picture that its box covers, the rest in grey.

    A cell's value stands at the centre of the cell; between centres it runs linearly.

    Args:
        picture: (H, W, 3) uint8 RGB.
        box: (4,) XYXY in pixels; what lies outside the picture is not seen.
        values: (K, K) in [0, 1], rows first: from clear to bright.

    Returns:
        (H, W, 3) uint8 RGB, a copy.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    result = cv2.cvtColor((grey * 0.8).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    limits = np.array([picture.shape[1], picture.shape[0]])
    left, top = np.clip(np.floor(box[:2]), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(box[2:]), 0, limits).astype(int)
    if left >= right or top >= bottom:
        return result
    step = np.array(values.shape[::-1]) / (box[2:] - box[:2])  # cells a pixel
    first = (np.array([left, top]) + 0.5 - box[:2]) * step - 0.5  # in cells, where a pixel is
    heat = cv2.warpAffine(
        values.astype(np.float32),
        np.column_stack([np.diag(step), first]),
        (int(right - left), int(bottom - top)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    heat = np.clip(heat, 0, 1)[..., None]
    colour = cv2.applyColorMap(np.round(255 * heat[..., 0]).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = 0.15 + 0.6 * heat  # a trace of the map even where it is 0: one sees where it ends
    area = result[top:bottom, left:right]
    area[:] = np.round((1 - share) * area + share * colour[..., ::-1])
    return result
