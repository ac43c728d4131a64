"""Drawing of Puppets videos: any moment of a script as an image, and the boxes of what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .scripts import STAGE_HEIGHT, Box, Cell, Colour, Puppet, PuppetParams, VideoScript

# A gesture is held for 0.65 s around its keyframe; the arms take 0.2 s to get there and back.
_HOLD, _RAMP = 0.65, 0.2
_BALL_RADIUS = 3.6
_CHEST_SIZE = (12.0, 10.0)
_PARCEL_SIZE = (0.42, 0.27)  # of the puppet's height


def _smooth(value: float) -> float:
    """Smooth step from 0 to 1."""
    value = min(max(value, 0.0), 1.0)
    return value * value * (3 - 2 * value)


@dataclass
class _Figure:
    """Joints of a puppet at one moment, in stage units; each limb is a polyline."""

    legs: list[np.ndarray]
    arms: list[np.ndarray]
    hip: np.ndarray
    neck: np.ndarray
    head: np.ndarray
    facing: int


def _gesture_at(cells: tuple[Cell, ...], time: float) -> tuple[Cell | None, float, int]:
    """The gesture shown at a moment: its cell, how far the arms have gone (0..1), its second."""
    now = math.floor(time + 0.5)
    best: tuple[Cell | None, float, int] = (None, 0.0, now)
    for second in (now, now - 1, now + 1):
        if 0 <= second < len(cells) and cells[second].gesture:
            amount = _smooth((_HOLD + _RAMP - abs(time - second)) / _RAMP)
            if amount > best[1]:
                best = (cells[second], amount, second)
    return best


def _arms(puppet: Puppet, time: float, cell: Cell | None, second: int) -> np.ndarray:
    """Elbows and hands relative to the neck, (2 arms, 2 joints, 2), in heights; None = hanging."""
    rest = np.array([[[-0.19, 0.15], [-0.21, 0.32]], [[0.19, 0.15], [0.21, 0.32]]])
    if cell is None:
        return rest
    beat = math.sin(2 * math.pi * (2.0 * (time - second) + cell.phase))
    side = cell.side
    if cell.gesture == "operate":  # both arms down towards the chest, pumping
        dip = 0.24 + 0.09 * beat
        hands = [[0.30 * side, dip], [0.26 * side, dip + 0.08]]
    elif cell.gesture == "salute":  # a V over the head, opening and closing
        spread = 0.27 + 0.06 * beat
        hands = [[-spread, -0.42], [spread, -0.42]]
    elif cell.gesture == "reach":  # both arms straight to the side
        hands = [[0.46 * side, 0.00], [0.46 * side, 0.11]]
    elif cell.gesture == "wave":  # one arm up and out, swinging
        angle = 0.75 + 0.45 * beat
        arm = 0 if side < 0 else 1
        joints = rest.copy()
        hand = np.array([side * (0.1 + 0.40 * math.cos(angle)), 0.06 - 0.44 * math.sin(angle)])
        joints[arm] = np.stack([hand / 2 + [0.05 * side, 0.02], hand])
        return joints
    elif cell.gesture in ("ring", "listen"):  # elbows out, hands together before the chest
        y = 0.20 + (0.02 * beat if cell.gesture == "ring" else 0.0)
        return np.array([[[-0.30, 0.20], [-0.05, y]], [[0.30, 0.20], [0.05, y]]])
    else:  # carry: around the parcel
        return np.array([[[-0.25, 0.16], [-0.17, 0.28]], [[0.25, 0.16], [0.17, 0.28]]])
    shoulders = np.array([[-0.10, 0.04], [0.10, 0.04]])
    return np.stack([(hands + shoulders) / 2, np.array(hands)], axis=1)


# How far a gesture bends the torso sideways, in heights of the puppet.
_LEAN = {"operate": 0.24, "reach": 0.05}


def _figure(script: VideoScript, puppet: Puppet, time: float) -> _Figure:
    """Joints of a puppet at a moment."""
    cells = script.cells[puppet.person_id]
    second = math.floor(time + 0.5)
    cell = cells[min(second, len(cells) - 1)]
    u = time + 0.5 - second
    h = puppet.height
    x = cell.x0 + (cell.x1 - cell.x0) * u
    lift = 0.26 * h * abs(math.sin(2 * math.pi * u)) if cell.pose == "jump" else 0.0
    squat = _smooth(u / 0.2) * _smooth((1 - u) / 0.2) if cell.pose == "crouch" else 0.0
    swing = math.sin(2 * math.pi * 2.0 * time) if cell.pose == "walk" else 0.0
    gesture, amount, when = _gesture_at(cells, time)
    lean = 0.0
    if gesture is not None and gesture.gesture in _LEAN:
        lean = _LEAN[gesture.gesture] * h * gesture.side * amount

    ground = puppet.baseline - lift
    leg = 0.36 * h * (1 - 0.55 * squat)
    hip = np.array([x, ground - leg])
    # A puppet that leans far bows: its neck stays at the length of the torso.
    torso = 0.30 * h * (1 - 0.12 * squat)
    neck = hip + [lean, -math.sqrt(max(torso**2 - lean**2, 0.0))]
    head = neck + [0.4 * lean, -0.165 * h]
    legs = []
    for s in (-1, 1):
        foot_x = x + s * h * (0.10 + 0.06 * squat) + s * swing * 0.15 * h
        raised = 0.07 * h * max(0.0, s * swing) if cell.pose == "walk" else 0.06 * h * (lift > 0)
        foot = np.array([foot_x, ground - raised])
        knee = (hip + foot) / 2 + [s * h * 0.17 * squat, 0]
        legs.append(np.stack([hip + [s * 0.06 * h, 0], knee, foot]))
    rest = _arms(puppet, time, None, when)
    rest[:, 1, 0] += -0.12 * swing
    if lift:
        rest[:, :, 0] *= 1.4
    joints = rest + amount * (_arms(puppet, time, gesture, when) - rest)
    arms = [
        np.concatenate([[neck + [s * 0.10 * h, 0.04 * h]], neck + h * joints[k]])
        for k, s in enumerate((-1, 1))
    ]
    facing = 1 if cell.x1 >= cell.x0 else -1
    if gesture is not None and gesture.gesture in ("operate", "reach", "wave"):
        facing = gesture.side
    return _Figure(legs, arms, hip, neck, head, facing)


def _limb(puppet: Puppet) -> float:
    """Stroke width of arms and legs."""
    return 0.105 * puppet.height


def person_box(script: VideoScript, person_id: int, time: float) -> Box:
    """Tight box around a drawn puppet, arms included, clipped, as fractions of the image."""
    puppet = script.puppets[person_id - 1]
    figure = _figure(script, puppet, time)
    h, r = puppet.height, _limb(puppet) / 2
    points = np.concatenate([*figure.legs, *figure.arms])
    low, high = points.min(axis=0) - r, points.max(axis=0) + r
    low = np.minimum(low, figure.head - [0.165 * h, 0.19 * h])
    low = np.minimum(low, figure.neck - [0.16 * h, 0])
    high = np.maximum(high, figure.head + 0.165 * h)
    high = np.maximum(high, figure.neck + [0.16 * h, 0])
    return _normalise(script.params, (low[0], low[1], high[0], high[1]))


def _normalise(params: PuppetParams, box: Box) -> Box:
    """Stage units to fractions of the image, clipped to it."""
    size = (params.stage_width, STAGE_HEIGHT) * 2
    x1, y1, x2, y2 = (float(min(max(v / s, 0.0), 1.0)) for v, s in zip(box, size))
    return x1, y1, x2, y2


def _balls_at(script: VideoScript, time: float) -> list[tuple[float, float]]:
    """Centres of the balls, which bounce from the ground to about the height of the arms."""
    lift = 11.0 * abs(math.sin(math.pi * 1.5 * time))
    shown = [ball for ball in script.balls if ball.start <= time < ball.end]
    return [(ball.x, ball.baseline - _BALL_RADIUS - lift) for ball in shown]


def _parcel_box(puppet: Puppet, figure: _Figure) -> Box:
    w, h = (puppet.height * v for v in _PARCEL_SIZE)
    cx, cy = figure.neck + [0, 0.26 * puppet.height]
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _chest_box(script: VideoScript) -> Box:
    (x, ground), (w, h) = script.chest, _CHEST_SIZE
    return x - w / 2, ground - h, x + w / 2, ground


def object_boxes(script: VideoScript, time: float) -> list[tuple[str, Box]]:
    """Class names and boxes (fractions of the image) of the chest, the balls and the parcels."""
    found = [("chest", _chest_box(script))]
    r = _BALL_RADIUS
    found += [("ball", (x - r, y - r, x + r, y + r)) for x, y in _balls_at(script, time)]
    for puppet in script.puppets:
        gesture, amount, _ = _gesture_at(script.cells[puppet.person_id], time)
        if gesture is not None and gesture.gesture == "carry" and amount > 0.5:
            found.append(("parcel", _parcel_box(puppet, _figure(script, puppet, time))))
    return [(name, _normalise(script.params, box)) for name, box in found]


class _Canvas:
    """An image that is drawn on in stage units, larger than needed, and scaled down at the end."""

    def __init__(self, params: PuppetParams, background: Colour) -> None:
        self.size = (params.width, params.height)
        # Small images are drawn three times larger: averaging is what keeps thin limbs smooth.
        self.times = 3 if params.height <= 96 else 2
        self.unit = self.times * params.height / STAGE_HEIGHT
        shape = (params.height * self.times, params.width * self.times, 3)
        self.image = np.empty(shape, np.uint8)
        cv2.rectangle(self.image, (0, 0), (shape[1], shape[0]), background, -1)  # faster than numpy

    def _px(self, points: np.ndarray) -> np.ndarray:
        # Fixed point with 4 binary digits; pixel centres lie at whole numbers, hence the offset.
        return (np.asarray(points) * (self.unit * 16) - 7.5).astype(np.int32)

    def line(self, points: np.ndarray, width: float, colour: Colour) -> None:
        thick = max(1, round(width * self.unit))
        cv2.polylines(self.image, [self._px(points)], False, colour, thick, cv2.LINE_8, 4)

    def disc(self, centre: np.ndarray, radius: float, colour: Colour) -> None:
        x, y = self._px(centre)
        r = max(1, round(radius * self.unit * 16))
        cv2.circle(self.image, (int(x), int(y)), r, colour, -1, cv2.LINE_8, 4)

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        cv2.fillConvexPoly(self.image, self._px(points), colour, cv2.LINE_8, 4)

    def box(self, box: Box, colour: Colour) -> None:
        x1, y1, x2, y2 = box
        self.polygon(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]), colour)

    def result(self) -> np.ndarray:
        return cv2.resize(self.image, self.size, interpolation=cv2.INTER_AREA)


_LIMB_COLOUR = (45, 40, 45)
_FLASH_COLOURS = ((255, 250, 120), (255, 255, 255))


def _draw_puppet(canvas: _Canvas, puppet: Puppet, figure: _Figure, flash: int) -> None:
    """Draw one puppet; `flash` is 0, or 1 and 2 for the two colours of the flashing shirt."""
    h, limb = puppet.height, _limb(puppet)
    hip, neck, head = figure.hip, figure.neck, figure.head
    shoulders = neck + np.array([[-0.15 * h, 0], [0.15 * h, 0]])
    waist = hip + np.array([[0.12 * h, 0.05 * h], [-0.12 * h, 0.05 * h]])
    torso = np.concatenate([shoulders, waist])
    shirt = _FLASH_COLOURS[flash - 1] if flash else puppet.shirt
    if flash:  # a glowing rim that is drawn first and so shows around the body only
        glow, rim = _FLASH_COLOURS[0], 0.11 * h
        canvas.line(np.concatenate([torso, torso[:1]]), 2 * rim, glow)
        canvas.disc(head, 0.165 * h + rim, glow)
        for limbs in (figure.legs, figure.arms):
            for points in limbs:
                canvas.line(points, limb + 2 * rim, glow)
    for leg in figure.legs:
        canvas.line(leg, limb, puppet.trousers)
    canvas.polygon(torso, shirt)
    canvas.line(torso[[0, 1]], 0.06 * h, shirt)
    canvas.disc(head, 0.165 * h, puppet.skin)
    brim = head + [0, -0.06 * h]
    if puppet.hat_style == 0:  # cap
        crown = brim + np.array([[-0.13 * h, -0.03 * h], [0.13 * h, -0.03 * h]])
        canvas.line(crown, 0.09 * h, puppet.hat)
        canvas.line(np.array([brim, brim + [figure.facing * 0.18 * h, 0]]), 0.05 * h, puppet.hat)
    elif puppet.hat_style == 1:  # pointed
        corners = [brim + [-0.16 * h, 0], brim + [0.16 * h, 0], head + [0, -0.19 * h]]
        canvas.polygon(np.array(corners), puppet.hat)
    else:  # curls
        for dx, dy in ((-0.11, -0.06), (0.0, -0.11), (0.11, -0.06)):
            canvas.disc(head + [dx * h, dy * h], 0.075 * h, puppet.hat)
    eye = head + [figure.facing * 0.075 * h, 0.02 * h]
    canvas.disc(eye, 0.035 * h, (20, 20, 20))
    for arm in figure.arms:
        canvas.line(arm, limb, _LIMB_COLOUR)
        canvas.disc(arm[-1], 0.062 * h, puppet.skin)


def render_frame(script: VideoScript, time: float) -> np.ndarray:
    """Draw a moment of a video: RGB, (height, width, 3) uint8."""
    canvas = _Canvas(script.params, script.background)
    x1, y1, x2, y2 = _chest_box(script)
    drawn: list[tuple[float, int]] = [(script.chest[1], 0)]
    drawn += [(p.baseline, p.person_id) for p in script.puppets]
    in_front: list[tuple[Cell, Puppet, _Figure]] = []
    for _, person_id in sorted(drawn):
        if person_id == 0:
            canvas.box((x1, y1, x2, y2), script.chest_colour)
            red, green, blue = (int(v * 1.5) for v in script.chest_colour)
            canvas.box((x1, y1, x2, y1 + 3.2), (red, green, blue))
            canvas.box((x1, y1 + 3.2, x2, y1 + 4.2), (30, 20, 10))
            canvas.disc(np.array([(x1 + x2) / 2, y1 + 4.6]), 1.5, (250, 210, 60))
            continue
        puppet = script.puppets[person_id - 1]
        figure = _figure(script, puppet, time)
        _draw_puppet(canvas, puppet, figure, _flash_at(script, person_id, time))
        gesture, amount, _ = _gesture_at(script.cells[person_id], time)
        if gesture is not None and amount > 0.5 and gesture.gesture in ("ring", "carry"):
            in_front.append((gesture, puppet, figure))
    for gesture, puppet, figure in in_front:
        if gesture.gesture == "carry":
            left, top, right, bottom = box = _parcel_box(puppet, figure)
            canvas.box(box, (205, 150, 80))
            middle = (left + right) / 2
            canvas.box((middle - 0.9, top, middle + 0.9, bottom), (250, 235, 190))
        else:
            _draw_bell(canvas, puppet, figure, gesture, time)
    for x, y in _balls_at(script, time):
        canvas.disc(np.array([x, y]), _BALL_RADIUS, (235, 235, 235))
        canvas.disc(np.array([x, y]), _BALL_RADIUS * 0.55, (225, 30, 60))
    return canvas.result()


def _draw_bell(canvas: _Canvas, puppet: Puppet, figure: _Figure, cell: Cell, time: float) -> None:
    """A bell that blinks and shakes in front of its holder's chest."""
    h = puppet.height
    on = math.floor(4 * time + 2 * cell.phase) % 2
    shake = 0.03 * h * (1 if on else -1)
    centre = figure.neck + [shake, 0.18 * h]
    canvas.disc(centre, 0.16 * h, (20, 20, 20))
    canvas.disc(centre, 0.13 * h, (255, 255, 255) if on else (255, 200, 0))


def _flash_at(script: VideoScript, person_id: int, time: float) -> int:
    """0, or which of the two flash colours a puppet shows at a moment."""
    flashes = (e.time for e in script.events if (e.name, e.person_id) == ("flash", person_id))
    shown = any(abs(time - second) <= _HOLD for second in flashes)
    return 1 + math.floor(4 * time) % 2 if shown else 0
