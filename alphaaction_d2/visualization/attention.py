"""Attention over the keyframe: maps (IGMN, Fig. 5), and to persons and objects (AIA, Fig. 4).

Shape letters: H W picture, G side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..formats.results import ClipAttention, KeyframeResult, PersonResult
from .contact_sheet import Tile, contact_sheet, scale_into
from .palette import RGB, IdentityColours, mix
from .text import format_time, name_person

MAX_PERSONS = 6  # in one picture, the first ones
# A view shows so many times the width and height of the box with the map.
_CONTEXT = 2.0
_PLACE = (440, 330)  # largest width and height of a view in pixels


def attention_of(keyframe: KeyframeResult) -> ClipAttention:
    """What was recorded; only keyframes that have it are drawn."""
    assert keyframe.attention is not None, "nothing was recorded"
    return keyframe.attention


def name_with_action(person: PersonResult) -> str:
    """Who it is and the best action."""
    name = name_person(person.person_id, "person")
    return " ".join([name, *(f"{n} {s:.0%}" for n, s in person.actions[:1])])


def attention_map_sheet(
    picture: np.ndarray, keyframe: KeyframeResult, colours: IdentityColours
) -> np.ndarray:
    """One row a person: the keyframe around the person, and each map laid over it.

    All maps of a sheet share one scale, from their smallest to their largest value (but no
    difference below 0.1 fills it); below each are its own smallest and largest. Boxes are in pixels
    of the picture; sheet and picture are (H, W, 3) uint8 RGB.
    """
    attention = attention_of(keyframe)
    maps = {name: x[:MAX_PERSONS] for name, x in attention.maps.items()}
    values = np.concatenate([x.ravel() for x in maps.values()])
    limits = (min(values.min(), values.max() - 0.1), values.max())
    map_boxes = attention.map_boxes[:MAX_PERSONS] * np.tile(picture.shape[1::-1], 2)
    rgb = colours.of([person.person_id for person in keyframe.persons])
    tiles = []
    for i, box in enumerate(map_boxes):
        own = {name: x[i] for name, x in maps.items()}
        tiles += _row(picture, keyframe, i, rgb, box, own, limits)
    return contact_sheet(tiles, columns=1 + len(maps), tile_width=_PLACE[0])


def clip_attention_sheet(
    picture: np.ndarray, keyframe: KeyframeResult, colours: IdentityColours
) -> np.ndarray:
    """One row a person: what of the keyframe each attention is to, bright, and how much of it;
    pictures and boxes as in :func:`attention_map_sheet`."""
    attentions = attention_of(keyframe).clip
    small = scale_into(picture, _PLACE)
    size = np.tile(small.shape[1::-1], 2)
    rgb = colours.of([person.person_id for person in keyframe.persons])
    scale = np.tile(np.array(small.shape[1::-1]) / picture.shape[1::-1], 2)
    tiles = []
    for i, person in enumerate(keyframe.persons[:MAX_PERSONS]):
        title = f"{format_time(keyframe.timestamp)}  {name_with_action(person)}"
        tiles.append(Tile(small, np.array([person.box * scale]), [[]], title, [rgb[i]]))
        for attention in attentions:
            boxes, weights = attention.boxes * size, attention.weights[i]
            labels = [[f"{w:.0%}"] if w >= 0.005 else [] for w in weights]
            shades = [mix((255, 214, 64), (110, 110, 110), float(w)) for w in weights]
            lit = light_up(small, boxes, weights)
            tiles.append(Tile(lit, boxes, labels, attention.name, shades))
    return contact_sheet(tiles, columns=1 + len(attentions), tile_width=_PLACE[0])


def light_up(picture: np.ndarray, boxes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Darken a picture (H, W, 3) but for its boxes (J, 4), the more the less their weights (J,).

    The largest weight leaves its box as it is.
    """
    share = np.zeros(picture.shape[:2])
    brightest = weights.max(initial=0.0)
    for box, weight in zip(boxes, weights):
        left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
        right, bottom = np.ceil(box[2:]).astype(int)
        area = share[top:bottom, left:right]
        np.maximum(area, weight / brightest if brightest > 0 else 0.0, out=area)
    return np.round(picture * (0.3 + 0.7 * share[..., None])).astype(np.uint8)


def _row(
    picture: np.ndarray,
    keyframe: KeyframeResult,
    index: int,
    rgb: Sequence[RGB],
    map_box: np.ndarray,
    maps: dict[str, np.ndarray],
    limits: tuple[float, float],
) -> list[Tile]:
    """The tiles of the person at that index."""
    view = view_around(map_box, picture.shape[1], picture.shape[0])
    crop = scale_into(picture[view[1] : view[3], view[0] : view[2]], _PLACE)
    size = np.array(crop.shape[1::-1])
    scale = np.tile(size / (view[2:] - view[:2]), 2)  # with what rounding made of it
    persons = keyframe.persons
    boxes = (np.array([person.box for person in persons]) - np.tile(view[:2], 2)) * scale
    inside = (np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0) > 1).all(axis=1)
    order = [index, *(i for i in range(len(persons)) if i != index)]
    visible = [i for i in order if inside[i]]
    labels = [[name_person(persons[i].person_id, "person")] for i in visible]
    label = name_with_action(persons[index])
    if inside[index]:
        labels[0] = [label]
    time = f"{format_time(keyframe.timestamp)}  {label}"
    tiles = [Tile(crop, boxes[visible], labels, time, [rgb[i] for i in visible])]
    own = boxes[[index]][inside[[index]]]
    for name, values in maps.items():
        title = f"{name}, {values.min():.2f} to {values.max():.2f}"
        stretched = (values - limits[0]) / (limits[1] - limits[0])
        heated = overlay_map(crop, (map_box - np.tile(view[:2], 2)) * scale, stretched)
        tiles.append(Tile(heated, own, [[]] * len(own), title, [rgb[index]]))
    return tiles


def view_around(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of a picture to show of an XYXY box (4,): (4,) whole pixels, of the picture's
    proportions."""
    share = float((_CONTEXT * (box[2:] - box[:2]) / (width, height)).max())
    size = np.ceil(np.clip(share, 0.15, 1.0) * np.array([width, height])).astype(np.int64)
    start = np.round((box[:2] + box[2:] - size) / 2).astype(np.int64)
    start = np.clip(start, 0, np.array([width, height]) - size)
    return np.concatenate([start, start + size])


def overlay_map(picture: np.ndarray, box: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a map (G, G) in [0, 1], rows first, over the part of a picture that its XYXY box covers,
    the rest in grey; pictures are (H, W, 3) uint8 RGB, and the box may leave them.

    A cell's value stands at the centre of the cell; between centres it runs linearly.
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
