"""Augmentations of clips, as detectron2 transforms: sampled once a clip, applied frame by frame."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T

from .scaling import resized_size


def split_channels(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> contiguous (C, H, W), C >= 1; the same as transposing, several times as fast."""
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    if image.flags.c_contiguous:
        cv2.split(image, list(planes))  # writes into the planes
    else:  # a mirrored view, say: OpenCV would first copy it, more slowly than this
        for channel, plane in enumerate(planes):
            plane[:] = image[..., channel]
    return planes


class ClipResizeTransform(T.Transform):
    """OpenCV's bilinear scaling of uint8 frames; boxes scale by new / old in x and y."""

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.new_height, self.new_width = new_height, new_width

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) -> (new_height, new_width, C)."""
        if img.shape[:2] == (self.new_height, self.new_width):
            return img
        size = (self.new_width, self.new_height)
        return cv2.resize(img, size, interpolation=cv2.INTER_LINEAR)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) points, x first."""
        scale = (self.new_width / self.width, self.new_height / self.height)
        return coords * np.array(scale, dtype=coords.dtype)


class ResizeShortSide(T.Augmentation):
    """Scale the short side to one of the given lengths, keeping the aspect ratio. 0 keeps all."""

    def __init__(self, short_sides: tuple[int, ...], max_long_side: int) -> None:
        super().__init__()
        self.short_sides, self.max_long_side = tuple(short_sides), max_long_side

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        short_side = int(np.random.choice(self.short_sides))
        if short_side == 0:
            return T.NoOpTransform()
        return ClipResizeTransform(
            height, width, *resized_size(height, width, short_side, self.max_long_side)
        )


class ColorShiftTransform(T.Transform):
    """Shift hue (modulo 180), saturation and value (clipped to 0..255) of RGB uint8 frames."""

    def __init__(self, hue: int, saturation: int, value: int) -> None:
        super().__init__()
        grey = np.arange(256)
        self.tables = (
            ((grey + hue + 180) % 180).astype(np.uint8),
            np.clip(grey + saturation, 0, 255).astype(np.uint8),
            np.clip(grey + value, 0, 255).astype(np.uint8),
        )

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        channels = cv2.split(cv2.cvtColor(img, cv2.COLOR_RGB2HSV))
        shifted = [cv2.LUT(channel, table) for channel, table in zip(channels, self.tables)]
        return cv2.cvtColor(cv2.merge(shifted), cv2.COLOR_HSV2RGB)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


class ColorJitter(T.Augmentation):
    """Uniform integer shifts in [-x, x] of hue, saturation and value, one draw a clip."""

    def __init__(self, limits: tuple[int, int, int]) -> None:
        super().__init__()
        self.limits = tuple(limits)

    def get_transform(self, image: np.ndarray) -> ColorShiftTransform:
        return ColorShiftTransform(*(int(np.random.randint(-x, x + 1)) for x in self.limits))
