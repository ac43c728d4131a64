"""Box augmentation of the training persons: a pure function of boxes and random numbers."""

from __future__ import annotations

import numpy as np


def jitter_boxes(
    boxes: np.ndarray,
    draws: np.ndarray,
    jitter: tuple[float, float, float, float],
    image_size: tuple[int, int],
) -> np.ndarray:
    """Move every edge of every box at random (recipe of the authors' released AIA).

    Args:
        boxes: (R, 4) XYXY in pixels.
        draws: (R, 4) uniform in [0, 1), for x1, y1, x2, y2.
        jitter: largest shift (x outward, x inward, y outward, y inward) as share of width or
            height.
        image_size: (height, width); results stay inside and keep at least two pixels.
    """
    height, width = image_size
    out_x, in_x, out_y, in_y = jitter
    low = np.array([-out_x, -out_y, -in_x, -in_y])
    high = np.array([in_x, in_y, out_x, out_y])
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + size * (low + draws * (high - low))
    limit = np.array([width, height])
    top_left = np.clip(moved[:, :2], 0, np.maximum(limit - 2, 0))
    bottom_right = np.clip(moved[:, 2:], top_left + 2, np.maximum(limit, top_left + 2))
    return np.concatenate([top_left, bottom_right], axis=1)


def enlarge_boxes(
    boxes: np.ndarray, factors: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """Scale every box about its centre and clip it to the picture (IGMN, Sec. 4.1).

    Args:
        boxes: (R, 4) XYXY in pixels.
        factors: (R,) of width and height.
        image_size: (height, width).
    """
    height, width = image_size
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * factors[:, None]
    scaled = np.concatenate([centre - half, centre + half], axis=1)
    return np.clip(scaled, 0, [width, height, width, height])
