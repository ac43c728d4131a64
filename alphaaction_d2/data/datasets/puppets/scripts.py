"""Scripts of Puppets videos: who does what, when and where, and which labels follow.

Nothing but what a class is about may give its label away, and that holds by construction: who, when
and where is planned first, for all outcomes alike, and a coin then says which outcome it is.

Time runs in cells of one second, each centred on a whole second: cell ``t`` covers
[t - 0.5, t + 0.5), so keyframe ``t`` is the middle of its cell. Lengths are in stage units: the
image is 64 units high whatever its size in pixels, so the same seed gives the same script, larger,
when width and height grow together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np


class PuppetClass(NamedTuple):
    """One row of the label map."""

    action_id: int
    name: str
    group: str


_GROUPS = {
    "POSE": ("stand", "walk", "jump", "crouch"),
    "OBJECT": ("reach for", "carry"),
    "PERSON": ("wave to",),
    "MEMORY": ("open", "close"),
    "IDENTITY": ("return", "greet"),
    "OVERLAP": ("ring",),
}
_NAMES = [(name, group) for group, names in _GROUPS.items() for name in names]
PUPPET_CLASSES = tuple(PuppetClass(i, *name) for i, name in enumerate(_NAMES, start=1))
# Rules of the labels, in seconds. The memory window of the small configs is +-7 s. A clip reaches
# one second beyond its keyframe, hence 9 and not 8 between what must not share a window.
OPEN_CLOSE_GAP = (2, 6)
CLOSE_OPEN_GAP = 9
FLASH_DELAYS = (3, 7)
SESSION_GAP = 2

STAGE_HEIGHT = 64.0
Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Colour = tuple[int, int, int]  # red, green, blue, 0..255
_SPEED = 26.0  # fastest walk, units per second
_MARGIN = 12.0  # no puppet's centre comes nearer to the left and right border
_ELBOW_ROOM = 14.0  # puppets with appointments in the same second keep this distance
_TRIES = 60  # random proposals before an event is given up for lack of room


@dataclass(frozen=True)
class PuppetParams:
    """Everything that determines a Puppets data set: scripts, frames and tables."""

    num_train: int = 120  # videos
    num_val: int = 40
    seed: int = 0
    seconds: int = 30  # of each video; keyframes are the whole seconds 1 .. seconds - 2
    width: int = 96  # pixels, even numbers (H.264 with 4:2:0 chroma)
    height: int = 64
    fps: int = 8  # frames per second, also the distance of the video's key frames

    def __post_init__(self) -> None:
        lowest = {"num_train": 0, "num_val": 0, "seed": 0, "seconds": 4, "fps": 2}
        for name, least in (lowest | {"width": 48, "height": 32}).items():
            value, is_odd = getattr(self, name), name not in lowest and getattr(self, name) % 2
            if value < least or is_odd:
                expected = f"at least {least}" if name in lowest else f"an even number >= {least}"
                raise ValueError(f"puppets: {name} is {value}, expected {expected}")
        if self.stage_width < 80:
            raise ValueError(
                f"puppets: {self.width}x{self.height} is too narrow, expected width >= 5/4 height"
            )

    @property
    def stage_width(self) -> float:
        """Width of the image in stage units."""
        return STAGE_HEIGHT * self.width / self.height

    def count(self, split: str) -> int:
        """Number of videos of a split."""
        return getattr(self, f"num_{split}")


SPLITS = ("train", "val")


def keyframes(params: PuppetParams) -> range:
    """Seconds with annotations: those whose 2-second clip lies inside the video."""
    return range(1, params.seconds - 1)


@dataclass(frozen=True)
class Puppet:
    """Looks of a puppet. Two puppets that are equal but for `person_id` are look-alikes."""

    person_id: int
    height: float
    baseline: float
    shirt: Colour
    trousers: Colour
    skin: Colour
    hat: Colour
    hat_style: int


@dataclass(frozen=True)
class Cell:
    """What a puppet does in one second: from `x0` to `x1` in a pose, maybe with a gesture."""

    pose: str
    x0: float
    x1: float
    gesture: str = ""
    side: int = 1
    phase: float = 0.0


@dataclass(frozen=True)
class Ball:
    """A ball that bounces at `x` while `start` <= time < `end`."""

    x: float
    baseline: float
    start: float
    end: float


@dataclass(frozen=True)
class Event:
    """One line of the event log: who did what when, and the class it is labelled with, or ""."""

    name: str
    time: int
    person_id: int
    x: float
    side: int
    label: str


@dataclass(frozen=True)
class VideoScript:
    """All that happens in a video, in stage units and seconds."""

    video_id: str
    params: PuppetParams
    background: Colour
    puppets: tuple[Puppet, ...]
    look_alikes: tuple[int, int]
    cells: dict[int, tuple[Cell, ...]]
    chest: tuple[float, float]
    chest_colour: Colour
    balls: tuple[Ball, ...]
    events: tuple[Event, ...]

    def labels(self, person_id: int, time: int) -> list[str]:
        """Class names of a person at a keyframe: its pose, then its gesture's class if any."""
        events = (e for e in self.events if (e.person_id, e.time) == (person_id, time))
        return [self.cells[person_id][time].pose, *(e.label for e in events if e.label)]


@dataclass
class _Appointment:
    """A puppet has to be at `x` in second `cell`."""

    cell: int
    x: float
    gesture: str = ""
    side: int = 1
    pose: str = "stand"
    phase: float = 0.0


@dataclass
class _Diary:
    """The appointments of one puppet; at least one free second lies between two of them."""

    stage_width: float
    appointments: dict[int, _Appointment] = field(default_factory=dict)

    def reachable(self, cell: int) -> tuple[float, float] | None:
        """The interval of x that the puppet can be at in `cell` and still keep all appointments."""
        low, high = _MARGIN, self.stage_width - _MARGIN
        for other in self.appointments.values():
            gap = abs(other.cell - cell)
            if gap < 2:
                return None
            way = _SPEED * (gap - 1)
            low, high = max(low, other.x - way), min(high, other.x + way)
        return (low, high) if low <= high else None

    def at(self, cell: int) -> float:
        """About where the puppet is in `cell`: on the straight way between two appointments."""
        known = sorted(self.appointments)
        if not known:
            return self.stage_width / 2
        return float(np.interp(cell, known, [self.appointments[c].x for c in known]))

    def can_be(self, cell: int, x: float) -> bool:
        interval = self.reachable(cell)
        return interval is not None and interval[0] <= x <= interval[1]


class _Planner:
    """Plan a video: first the appointments of all gestures, then what fills the seconds between.

    Every choice that a label depends on is a coin tossed after the appointments of all its outcomes
    have been made, so that place, time, company and surroundings of a gesture are distributed alike
    for all outcomes. In open and close the order is the label; nothing but the time differs there.
    """

    def __init__(self, rng: np.random.Generator, params: PuppetParams) -> None:
        self.rng = rng
        self.params = params
        self.width = params.stage_width
        self.last = params.seconds - 2
        self.puppets, self.look_alikes = draw_cast(rng)
        self.diaries = {p.person_id: _Diary(self.width) for p in self.puppets}
        self.chest_x = float(rng.uniform(26, self.width - 26))
        self.balls: list[Ball] = []
        self.events: list[Event] = []

    # Helpers.

    def _ids(self) -> list[int]:
        """All person ids in random order."""
        return [int(i) for i in self.rng.permutation([p.person_id for p in self.puppets])]

    def _coin(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def _side(self) -> int:
        return 1 if self._coin() else -1

    def _free_cell(self, *person_ids: int) -> int:
        """A random second in which the given puppets have nothing to do, or 0 if there is none."""
        busy = {
            cell + shift
            for i in person_ids
            for cell in self.diaries[i].appointments
            for shift in (-1, 0, 1)
        }
        free = [t for t in range(1, self.last + 1) if t not in busy]
        return free[self.rng.integers(len(free))] if free else 0

    def _clear(self, cell: int, x: float, ignore: tuple[int, ...] = ()) -> bool:
        """Whether nobody else has an appointment near `x` in that second."""
        others = (d.appointments.get(cell) for i, d in self.diaries.items() if i not in ignore)
        return not any(other and abs(other.x - x) < _ELBOW_ROOM for other in others)

    def _book(self, person_id: int, cell: int, x: float, **kwargs) -> _Appointment:
        appointment = _Appointment(cell, x, phase=float(self.rng.random()), **kwargs)
        self.diaries[person_id].appointments[cell] = appointment
        return appointment

    def _log(self, name: str, person_id: int, appointment: _Appointment, label: str) -> None:
        self.events.append(
            Event(name, appointment.cell, person_id, appointment.x, appointment.side, label)
        )

    # One method per group.

    def plan_memory(self) -> None:
        """Cycles of open and close at the chest, too far apart to share a memory window."""
        for person_label, time in self._cycles():
            wanted = 2
            side = self._side()
            for person_id in self._ids():
                x = self.chest_x + side * float(self.rng.uniform(11, 13.5))
                if wanted and self.diaries[person_id].can_be(time, x):
                    booked = self._book(person_id, time, x, gesture="operate", side=-side)
                    self._log("operate", person_id, booked, person_label)
                    wanted, side = wanted - 1, -side

    def _cycles(self) -> list[tuple[str, int]]:
        """(label, time) of all uses of the chest."""
        room = self.last - 1
        number = 3
        while number:
            gaps = self.rng.integers(OPEN_CLOSE_GAP[0], OPEN_CLOSE_GAP[1] + 1, size=number)
            used = int(gaps.sum()) + CLOSE_OPEN_GAP * (number - 1)
            if used <= room:
                break
            if number == 1 or self._coin(0.02):
                number -= 1
        uses: list[tuple[str, int]] = []
        if not number:
            return uses
        # The seconds left over are spread at random before, between and after the cycles.
        spare = self.rng.multinomial(room - used, np.full(number + 1, 1 / (number + 1)))
        time = 1
        for pause, gap in zip(spare.tolist(), gaps.tolist()):
            time += pause
            uses += [("open", time), ("close", time + gap)]
            time += gap + CLOSE_OPEN_GAP
        return uses

    def plan_identity(self) -> None:
        """Sessions: the look-alikes meet, one of them flashes, later both make the gesture."""
        span = FLASH_DELAYS[1]
        number = max(1, (self.last - 1 + SESSION_GAP) // (span + SESSION_GAP))
        sessions, earliest = [], 1
        for left in range(number - 1, -1, -1):
            latest = self.last - span - left * (span + SESSION_GAP)
            session = self._meet(range(earliest, latest + 1))
            if session is None:
                earliest = latest + 1
                continue
            sessions.append(session)
            earliest = session[0][0].cell + span + SESSION_GAP
        # One coin per video: before the other one may flash, a whole window would have to pass.
        flashes = int(self.rng.integers(2))
        for session in sessions:
            for i, person_id in enumerate(self.look_alikes):
                meeting, *salutes = session[i]
                if i == flashes:
                    self._log("flash", person_id, meeting, "")
                for booked in salutes:
                    self._log("salute", person_id, booked, "return" if i == flashes else "greet")

    def _meet(self, starts: range) -> tuple[list[_Appointment], list[_Appointment]] | None:
        """Book one session in one of the given seconds; None if there is no place for it.

        It is for each look-alike the appointment of the meeting and those of its salutes.
        """
        pair = self.look_alikes
        for start in self.rng.permutation(np.arange(starts.start, starts.stop)).tolist():
            places = self._meeting_place(start)
            if places is None:
                continue
            booked = [[self._book(i, start, x)] for i, x in zip(pair, places)]
            for i in self.rng.permutation(2):
                booked[i] += self._salutes(pair[i], start, places)
            if all(len(b) > 1 for b in booked):
                return booked[0], booked[1]
            for i in range(2):  # nothing to tell apart: take it back
                for appointment in booked[i]:
                    del self.diaries[pair[i]].appointments[appointment.cell]
        return None

    def _meeting_place(self, start: int) -> tuple[float, float] | None:
        """Where the look-alikes can stand side by side in a second."""
        pair = self.look_alikes
        for _ in range(10):
            middle = self.rng.uniform(_MARGIN + 14, self.width - _MARGIN - 14)
            half = self._side() * self.rng.uniform(10, 14)
            places = float(middle - half), float(middle + half)
            if self._pair_can_be(pair, start, places):
                return places
        return None

    def _salutes(
        self, person_id: int, start: int, places: tuple[float, float]
    ) -> list[_Appointment]:
        """Book one or two salutes of a look-alike, at places that both could have reached."""
        diary = self.diaries[person_id]
        delays = range(FLASH_DELAYS[0], FLASH_DELAYS[1] + 1)
        pairs: list[tuple[int, ...]] = [(a, b) for a in delays for b in delays if b >= a + 2]
        choices = [pairs[i] for i in self.rng.permutation(len(pairs))]
        for choice in choices + [(delays[i],) for i in self.rng.permutation(len(delays))]:
            made: list[_Appointment] = []
            for delay in choice:
                way = _SPEED * (delay - 1)
                interval = diary.reachable(start + delay)
                if interval is None:
                    break
                low, high = max(interval[0], max(places) - way), min(interval[1], min(places) + way)
                if low > high:
                    break
                for x in self.rng.uniform(low, high, size=6).tolist():
                    if self._clear(start + delay, x, (person_id,)):
                        made.append(self._book(person_id, start + delay, x, gesture="salute"))
                        break
            if len(made) == len(choice):
                return made
            for booked in made:
                del diary.appointments[booked.cell]
        return []

    def _apart(self, name: str, time: int, gap: int) -> bool:
        """Whether all events of a name are at least `gap` seconds away."""
        return all(abs(e.time - time) >= gap for e in self.events if e.name == name)

    def _pair_can_be(self, pair: Sequence[int], time: int, places: Sequence[float]) -> bool:
        """Whether two puppets can be at two places in a second, with nobody else near."""
        return all(
            self.diaries[i].can_be(time, x) and self._clear(time, x, tuple(pair))
            for i, x in zip(pair, places)
        )

    def plan_overlap(self) -> None:
        """Two puppets stand so close that their boxes overlap; one of them has the bell."""
        for _ in range(_TRIES):
            pair = self._ids()[:2]
            time = self._free_cell(*pair)
            x = float(self.rng.uniform(_MARGIN, self.width - _MARGIN))
            places = x, x + float(self.rng.uniform(4.5, 6.5))
            if not (time and self._apart("ring", time, 2)):
                continue
            if not self._pair_can_be(pair, time, places):
                continue
            ringer = int(self.rng.integers(2))
            for i in range(2):
                name = "ring" if i == ringer else "listen"
                booked = self._book(pair[i], time, places[i], gesture=name)
                self._log(name, pair[i], booked, "ring" if i == ringer else "")
            return

    def plan_wave(self) -> None:
        """Two puppets stand apart; both wave, or only one of them does."""
        for _ in range(_TRIES):
            pair = self._ids()[:2]
            time = self._free_cell(*pair)
            places = self.rng.uniform(_MARGIN, self.width - _MARGIN, size=2).tolist()
            if not (time and abs(places[0] - places[1]) >= 24 and self._apart("wave", time, 2)):
                continue
            if not self._pair_can_be(pair, time, places):
                continue
            booked = [self._book(i, time, x, side=self._side()) for i, x in zip(pair, places)]
            # A mutual event has two positives, a lone one a single negative: 0.37 makes them
            # about even.
            mutual = self._coin(0.37)
            for i in (0, 1) if mutual else (int(self.rng.integers(2)),):
                booked[i].gesture = "wave"
                self._log("wave", pair[i], booked[i], "wave to" if mutual else "")
            return

    def plan_reach(self) -> None:
        """Arms to one side; a ball on that side, on the other side, or none at all."""
        for _ in range(_TRIES):
            person_id = self._ids()[0]
            time = self._free_cell(person_id)
            x = float(self.rng.uniform(30, self.width - 30))
            side, distance = self._side(), float(self.rng.uniform(22, 28))
            if not (time and self._apart("reach", time, 3)):
                continue
            clear = all(self._clear(time, x + k * distance) for k in (-1, 0, 1))
            if not (clear and self.diaries[person_id].can_be(time, x)):
                continue
            booked = self._book(person_id, time, x, gesture="reach", side=side)
            positive = self._coin()
            if positive or self._coin(0.4):
                baseline = self.puppets[person_id - 1].baseline
                ball_x = x + (side if positive else -side) * distance
                self.balls.append(Ball(ball_x, baseline, time - 1.1, time + 1.1))
            self._log("reach", person_id, booked, "reach for" if positive else "")
            return

    def plan_carry(self) -> None:
        """Three seconds with a parcel, walking in the middle one."""
        for _ in range(_TRIES if self.last >= 3 else 0):
            person_id, time = self._ids()[0], int(self.rng.integers(1, self.last - 1))
            diary = self.diaries[person_id]
            first, third = diary.reachable(time), diary.reachable(time + 2)
            if first is None or third is None:
                continue
            x, y = float(self.rng.uniform(*first)), float(self.rng.uniform(*third))
            if not 8 <= abs(x - y) <= _SPEED:
                continue
            if not (self._clear(time, x) and self._clear(time + 2, y)):
                continue
            start = self._book(person_id, time, x, gesture="carry")
            middle = _Appointment(time + 1, (x + y) / 2)  # on the way: `_walk` fills it in
            end = self._book(person_id, time + 2, y, gesture="carry")
            end.phase = start.phase  # tells one parcel from the next
            for appointment in (start, middle, end):
                self._log("carry", person_id, appointment, "carry")
            return

    # The seconds in between.

    def fill(self, person_id: int) -> tuple[Cell, ...]:
        """Turn a diary into cells 0 .. seconds: idle poses where there is time, and walks."""
        diary = self.diaries[person_id]
        self._idle(diary)
        stops = sorted(diary.appointments.values(), key=lambda a: a.cell)
        cells: list[Cell] = []
        for here, there in zip(stops, stops[1:]):
            cells.append(Cell(here.pose, here.x, here.x, here.gesture, here.side, here.phase))
            cells += self._walk(here, there)
        first = -stops[0].cell
        return tuple(cells[first : first + self.params.seconds + 1])

    def _idle(self, diary: _Diary) -> None:
        """Fill a diary up with idle appointments until nothing longer than two seconds is left."""
        for edge in (-2, self.params.seconds + 2):
            interval = diary.reachable(edge)
            assert interval is not None  # nothing is booked beyond the edge
            low, high = interval
            diary.appointments[edge] = _Appointment(edge, float(self.rng.uniform(low, high)))
        hurried: set[int] = set()  # where all the time until the next appointment goes into walking
        while True:
            cells = sorted(diary.appointments)
            gaps = [(a, b) for a, b in zip(cells, cells[1:]) if b - a > 3 and a not in hurried]
            if not gaps:
                return
            a, b = gaps[0]
            cell = int(self.rng.integers(a + 2, min(b - 2, a + 3) + 1))
            interval = diary.reachable(cell)
            if interval is None:
                hurried.add(a)
                continue
            others = [d.at(cell) for d in self.diaries.values() if d is not diary]
            places = self.rng.uniform(*interval, size=6).tolist()
            x = max(places, key=lambda x: min(abs(x - other) for other in others))
            pose = str(self.rng.choice(["stand", "jump", "crouch"], p=[0.2, 0.4, 0.4]))
            diary.appointments[cell] = _Appointment(cell, x, pose=pose)

    def _walk(self, here: _Appointment, there: _Appointment) -> list[Cell]:
        """The seconds between two stops."""
        free = there.cell - here.cell - 1
        carries = here.gesture == there.gesture == "carry" and here.phase == there.phase
        gesture: dict[str, Any] = {"gesture": "carry", "phase": here.phase} if carries else {}
        way = abs(there.x - here.x)
        if free == 2 and way <= _SPEED and not carries and self._coin(0.6):
            pose = str(self.rng.choice(["jump", "crouch"]))
            if self._coin():
                return [Cell("walk", here.x, there.x), Cell(pose, there.x, there.x)]
            return [Cell(pose, here.x, here.x), Cell("walk", here.x, there.x)]
        places = np.linspace(here.x, there.x, free + 1)
        return [Cell("walk", float(a), float(b), **gesture) for a, b in zip(places, places[1:])]


_CHESTS = ((120, 70, 30), (90, 60, 40), (140, 90, 40))
_SHIRTS = (
    *((214, 40, 40), (30, 80, 210), (20, 140, 60), (140, 40, 170)),
    *((235, 110, 20), (0, 150, 170), (200, 40, 120)),
)
_TROUSERS = ((30, 30, 60), (60, 40, 30), (40, 60, 40), (50, 50, 55))
_SKINS = ((250, 214, 180), (214, 160, 120), (140, 92, 62))
_HATS = ((30, 30, 30), (90, 30, 20), (20, 60, 110), (100, 80, 20))


def draw_cast(rng: np.random.Generator) -> tuple[tuple[Puppet, ...], tuple[int, int]]:
    """Two to four puppets with different shirts, two of which look alike, in random order."""
    number = int(rng.choice([2, 3, 4], p=[0.3, 0.55, 0.15]))
    shirts = rng.permutation(len(_SHIRTS))
    baselines = 53.0 + 6.0 * rng.permutation(number - 1) / max(1, number - 2)
    looks = [
        Puppet(
            person_id=0,
            height=float(rng.uniform(26, 30)),
            baseline=float(baselines[i]),
            shirt=_SHIRTS[shirts[i]],
            trousers=_TROUSERS[rng.integers(len(_TROUSERS))],
            skin=_SKINS[rng.integers(len(_SKINS))],
            hat=_HATS[rng.integers(len(_HATS))],
            hat_style=int(rng.integers(3)),
        )
        for i in range(number - 1)
    ]
    looks.append(looks[0])
    order = rng.permutation(number)
    puppets = tuple(replace(looks[which], person_id=i + 1) for i, which in enumerate(order))
    first, second = (i + 1 for i, which in enumerate(order) if which in (0, number - 1))
    return puppets, (first, second)


def plan_video(params: PuppetParams, split: str, index: int) -> VideoScript:
    """Write the script of the video with a number from 0 on; the same arguments give the same."""
    rng = np.random.default_rng([params.seed, SPLITS.index(split), index])
    planner = _Planner(rng, params)
    number = len(planner.puppets)
    # As many gestures as have room: a signal that is rare is not learned in a few minutes.
    amount = number * params.seconds / 30
    planner.plan_memory()
    planner.plan_identity()
    # In turns, so that all kinds get their share of the puppets' time.
    for turn in range(max(1, round(1.4 * amount))):
        if turn % 3 == 0:
            planner.plan_carry()
        for _ in range(2):
            planner.plan_overlap()
            planner.plan_wave()
            planner.plan_wave()
            planner.plan_reach()
    cells = {p.person_id: planner.fill(p.person_id) for p in planner.puppets}
    light = rng.uniform(150, 215) + rng.uniform(-12, 12, size=3)
    red, green, blue = (int(v) for v in np.clip(light, 0, 255))
    return VideoScript(
        video_id=f"{split}_{index:03d}",
        params=params,
        background=(red, green, blue),
        puppets=planner.puppets,
        look_alikes=planner.look_alikes,
        cells=cells,
        chest=(planner.chest_x, 58.0),
        chest_colour=_CHESTS[rng.integers(len(_CHESTS))],
        balls=tuple(planner.balls),
        events=tuple(sorted(planner.events, key=lambda e: (e.time, e.person_id))),
    )
