"""The way of a ping as a picture: where each part is, and how the arrows go, for three widths of a page.

The browser chooses by its width; all three have the same parts with the same figures. Lengths are units of
the picture, of which a page shows between 0.8 and 1.7 pixels each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from web.operations.shown import NOT_KNOWN, RED, ShownPart

BOX_WIDTH: Final = 150
BOX_HEIGHT: Final = 92
GAP_X: Final = 24
GAP_Y: Final = 30
EDGE: Final = 6
TEXT_MAX_CHARACTERS: Final = 24
"""What a line of a box has room for, at the size of its letters."""


class Route(Enum):
    """How an arrow goes from one box to another."""

    RIGHT = "right"
    LEFT = "left"
    DOWN = "down"
    DOWN_THEN_RIGHT = "down, then right"
    RIGHT_THEN_UP = "right, up in the gap, and right"
    ACROSS_BELOW = "down, across in the gap, and down"


Place = tuple[int, int]
"""Column and row."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the parts are, for one width."""

    name: str
    places: Mapping[str, Place]
    arrows: tuple[tuple[str, str, Route], ...]


WIDE: Final = Plan(
    "wide",
    {
        "edge": (0, 0),
        "spool": (1, 0),
        "raw": (2, 0),
        "drain": (3, 0),
        "live": (4, 0),
        "stable": (5, 0),
        "aggregates": (6, 0),
        "queue": (2, 1),
        "analyses": (5, 1),
        "cubes": (6, 1),
    },
    (
        ("edge", "spool", Route.RIGHT),
        ("spool", "raw", Route.RIGHT),
        ("spool", "queue", Route.DOWN_THEN_RIGHT),
        ("raw", "drain", Route.RIGHT),
        ("queue", "drain", Route.RIGHT_THEN_UP),
        ("drain", "live", Route.RIGHT),
        ("live", "stable", Route.RIGHT),
        ("stable", "aggregates", Route.RIGHT),
        ("stable", "analyses", Route.DOWN),
        ("aggregates", "cubes", Route.DOWN),
    ),
)
MIDDLE: Final = Plan(
    "middle",
    {
        "edge": (0, 0),
        "spool": (1, 0),
        "raw": (2, 0),
        "drain": (3, 0),
        "queue": (2, 1),
        "live": (3, 1),
        "cubes": (1, 2),
        "aggregates": (2, 2),
        "stable": (3, 2),
        "analyses": (3, 3),
    },
    (
        ("edge", "spool", Route.RIGHT),
        ("spool", "raw", Route.RIGHT),
        ("spool", "queue", Route.DOWN_THEN_RIGHT),
        ("raw", "drain", Route.RIGHT),
        ("queue", "drain", Route.RIGHT_THEN_UP),
        ("drain", "live", Route.DOWN),
        ("live", "stable", Route.DOWN),
        ("stable", "aggregates", Route.LEFT),
        ("aggregates", "cubes", Route.LEFT),
        ("stable", "analyses", Route.DOWN),
    ),
)
NARROW: Final = Plan(
    "narrow",
    {
        "edge": (0, 0),
        "spool": (1, 0),
        "queue": (0, 1),
        "raw": (1, 1),
        "drain": (1, 2),
        "live": (0, 2),
        "stable": (0, 3),
        "analyses": (1, 3),
        "aggregates": (0, 4),
        "cubes": (1, 4),
    },
    (
        ("edge", "spool", Route.RIGHT),
        ("spool", "raw", Route.DOWN),
        ("spool", "queue", Route.ACROSS_BELOW),
        ("raw", "drain", Route.DOWN),
        ("queue", "drain", Route.ACROSS_BELOW),
        ("drain", "live", Route.LEFT),
        ("live", "stable", Route.DOWN),
        ("stable", "analyses", Route.RIGHT),
        ("stable", "aggregates", Route.DOWN),
        ("aggregates", "cubes", Route.RIGHT),
    ),
)
PLANS: Final = (WIDE, MIDDLE, NARROW)


@dataclass(frozen=True, slots=True)
class Box:
    """A part in the picture."""

    shown: ShownPart
    x: int
    y: int
    state_line: str
    lines: tuple[str, ...]

    @property
    def label(self) -> str:
        """What a screen reader says of it: all that is written in it."""
        return ", ".join((self.shown.part.title, self.state_line, *self.lines))


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, as its template needs it."""

    name: str
    width: int
    height: int
    box_width: int
    box_height: int
    boxes: tuple[Box, ...]
    arrows: tuple[str, ...]
    """Paths of SVG."""


def pictures(way: tuple[ShownPart, ...], now: datetime) -> list[Picture]:
    """Return the picture at the aware moment `now` for each width of a page."""
    return [_picture(plan, way, now) for plan in PLANS]


def _picture(plan: Plan, way: tuple[ShownPart, ...], now: datetime) -> Picture:
    boxes = []
    for shown in way:
        x, y = _corner(plan.places[shown.part.name])
        lines = tuple(_cut(f"{figure.title}: {figure.text}") for figure in shown.figures[:2])
        boxes.append(Box(shown, x, y, _state_line(shown, now), lines))
    columns = max(column for column, _ in plan.places.values()) + 1
    rows = max(row for _, row in plan.places.values()) + 1
    return Picture(
        plan.name,
        columns * BOX_WIDTH + (columns - 1) * GAP_X + 2 * EDGE,
        rows * BOX_HEIGHT + (rows - 1) * GAP_Y + 2 * EDGE,
        BOX_WIDTH,
        BOX_HEIGHT,
        tuple(boxes),
        tuple(
            _path(plan.places[source], plan.places[target], route) for source, target, route in plan.arrows
        ),
    )


def _corner(place: Place) -> tuple[int, int]:
    column, row = place
    return EDGE + column * (BOX_WIDTH + GAP_X), EDGE + row * (BOX_HEIGHT + GAP_Y)


def _path(source: Place, target: Place, route: Route) -> str:
    (x, y), (to_x, to_y) = _corner(source), _corner(target)
    middle_x, middle_y = x + BOX_WIDTH // 2, y + BOX_HEIGHT // 2
    to_middle_x, to_middle_y = to_x + BOX_WIDTH // 2, to_y + BOX_HEIGHT // 2
    right, below = x + BOX_WIDTH, y + BOX_HEIGHT
    match route:
        case Route.RIGHT:
            return f"M{right} {middle_y}H{to_x}"
        case Route.LEFT:
            return f"M{x} {middle_y}H{to_x + BOX_WIDTH}"
        case Route.DOWN:
            return f"M{middle_x} {below}V{to_y}"
        case Route.DOWN_THEN_RIGHT:
            return f"M{middle_x} {below}V{to_middle_y}H{to_x}"
        case Route.RIGHT_THEN_UP:
            # It arrives below the arrow from the box above.
            return f"M{right} {middle_y}H{right + GAP_X // 2}V{to_y + BOX_HEIGHT * 3 // 4}H{to_x}"
        case Route.ACROSS_BELOW:
            # It leaves and arrives beside the middle, where other arrows are.
            start = middle_x - BOX_WIDTH // 4 if to_x < x else middle_x
            end = to_middle_x - BOX_WIDTH // 4 if to_x > x else to_middle_x
            return f"M{start} {below}V{below + GAP_Y // 2}H{end}V{to_y}"


def _state_line(shown: ShownPart, now: datetime) -> str:
    """Return the state with a mark of its own shape, so that no colour is needed to tell it."""
    if shown.since is None:
        return "○ alarms unknown" if shown.state == NOT_KNOWN else "● no alarm"
    since = f"{shown.since:%H:%M}" if shown.since.date() == now.date() else f"{shown.since:%b %d}"
    return f"▲ red since {since}" if shown.state == RED else f"◆ look: since {since}"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX_CHARACTERS else f"{text[: TEXT_MAX_CHARACTERS - 1]}…"
