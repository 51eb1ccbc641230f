"""What a page shows of a look: figures with their age, the state of each part, alarms, tables, works."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from telemetry_lake.monitoring.exporter_metrics import PREFIX
from telemetry_lake.monitoring.metric import Unit
from web.operations.formats import UNKNOWN, clock, seconds_since, text_of
from web.operations.parts import ALL_PARTS, Figure, How, Part, part_of
from web.operations.prometheus import Alarm, Point, State
from web.operations.reading import Samples
from web.operations.watch import Known, Look

RED: Final = "red"
AMBER: Final = "amber"
QUIET: Final = "quiet"
NOT_KNOWN: Final = "unknown"
PAGE: Final = "page"
"""The severity that is red; the others, and alarms that wait, are amber."""
WATCHDOG: Final = "watchdog"
"""The severity of the alarm that always fires, so that its absence says that alarms do not arrive."""
_SOURCE_AGE: Final = f"{PREFIX}exporter_source_age_seconds"


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure as text, and how old it is."""

    title: str
    text: str
    metric: str
    meaning: str
    age_seconds: float | None
    since_start: bool


@dataclass(frozen=True, slots=True)
class ShownAlarm:
    """An alarm, and the part that it is about."""

    alarm: Alarm
    part: Part
    is_red: bool

    @property
    def sentence(self) -> str:
        """What is wrong, in the words of its rule."""
        annotations = self.alarm.annotations
        return annotations.get("summary") or annotations.get("description") or ""

    @property
    def where(self) -> list[tuple[str, str]]:
        """The labels that say what it is about."""
        return sorted(
            (name, value)
            for name, value in self.alarm.labels.items()
            if name not in ("alertname", "severity")
        )


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part with its figures and alarms."""

    part: Part
    figures: tuple[Shown, ...]
    alarms: tuple[ShownAlarm, ...]
    state: str
    history: tuple[Point, ...]

    @property
    def since(self) -> datetime | None:
        """Since when it is red or amber."""
        of_state = [each for each in self.alarms if each.is_red] if self.state == RED else self.alarms
        return min((each.alarm.since for each in of_state), default=None)

    @property
    def state_text(self) -> str:
        """Its state in words."""
        if self.state == NOT_KNOWN:
            return "alarms unknown"
        if self.since is None:
            return "no alarm"
        word = "red" if self.state == RED else "to be looked at"
        return f"{word} since {self.since:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class TableRow:
    """A table, or something that is made again and again."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operations:
    """Everything that the page shows."""

    now: datetime
    look: Look
    way: tuple[ShownPart, ...]
    around: tuple[ShownPart, ...]
    alarms: tuple[ShownAlarm, ...]
    tables: tuple[TableRow, ...]
    works: tuple[TableRow, ...]
    costs: tuple[TableRow, ...]
    sources: tuple[TableRow, ...]

    @property
    def knows_alarms(self) -> bool:
        """Whether Prometheus answers."""
        return self.look.rules is not None and not self.look.rules.problem and bool(self.look.rules.value)

    @property
    def red(self) -> tuple[ShownPart, ...]:
        """The parts that are red."""
        return tuple(each for each in (*self.way, *self.around) if each.state == RED)

    @property
    def verdict(self) -> str:
        """How it stands, in a sentence or two."""
        sentences = []
        if self.look.exporter.problem:
            sentences.append(f"The exporter does not answer since {clock(self.look.exporter.away_since)}.")
        rules = self.look.rules
        if rules is None:
            sentences.append("Alarms are not known: no Prometheus is set. Figures are shown, and not judged.")
        elif not self.knows_alarms:
            since = f" since {clock(rules.away_since)}" if rules.away_since else " yet"
            sentences.append(f"Alarms are not known: Prometheus does not answer{since}.")
        elif self.red:
            names = ", ".join(f"{each.part.title} ({each.state_text})" for each in self.red)
            sentences.append(f"Red: {names}.")
        else:
            waiting = f" {len(self.alarms)} to be looked at." if self.alarms else ""
            sentences.append(f"Nothing is red.{waiting}")
        if self.knows_alarms and not self.watchdog_fires:
            sentences.append("The watchdog does not fire: alarms may not arrive.")
        return " ".join(sentences)

    @property
    def watchdog_fires(self) -> bool:
        """Whether the alarm that always fires does so, or there is no rule for one."""
        rules = self.look.rules.value if self.look.rules is not None else None
        if rules is None or WATCHDOG not in {name.lower() for name in rules.names}:
            return True
        return any(alarm.severity == WATCHDOG for alarm in rules.alarms)


def shown(look: Look, parts: tuple[Part, ...], around: tuple[Part, ...], now: datetime) -> Operations:
    """Return what the page shows of `look` at the aware moment `now`."""
    nodes = look.of_nodes()
    rules = look.rules.value if look.rules is not None and not look.rules.problem else None
    active = rules.alarms if rules is not None else ()
    alarms = tuple(_alarm(alarm) for alarm in active if alarm.severity != WATCHDOG)

    def part_shown(part: Part) -> ShownPart:
        own = tuple(each for each in alarms if each.part is part)
        if rules is None:
            state = NOT_KNOWN
        elif any(each.is_red for each in own):
            state = RED
        else:
            state = AMBER if own else QUIET
        figures = tuple(_figure(figure, look.exporter, nodes, now) for figure in part.figures)
        history = (look.histories.value or {}).get(part.name, ())
        return ShownPart(part, figures, own, state, history)

    samples = look.exporter.value or Samples({})
    late = seconds_since(look.exporter.read_at, now) or 0
    return Operations(
        now,
        look,
        tuple(map(part_shown, parts)),
        tuple(map(part_shown, around)),
        alarms,
        _tables(samples, late),
        _works(samples, late),
        tuple(
            TableRow(sample.labels.get("part", ""), (text_of(sample.value, Unit.DOLLARS),))
            for sample in samples.of(f"{PREFIX}cost_dollars_per_day")
        ),
        _sources(samples, late),
    )


def _alarm(alarm: Alarm) -> ShownAlarm:
    name = part_of(alarm.labels, alarm.metrics)
    [part] = [part for part in ALL_PARTS if part.name == name]
    return ShownAlarm(alarm, part, alarm.state is State.FIRING and alarm.severity == PAGE)


def _figure(figure: Figure, exporter: Known[Samples], nodes: Known[Samples], now: datetime) -> Shown:
    known = nodes if figure.is_of_nodes else exporter
    value = value_of(figure, known)
    if figure.how is How.RATE:
        unit = Unit.BYTES if figure.unit is Unit.BYTES else Unit.COUNT
        text = text_of(value, unit)
    else:
        text = text_of(value, figure.unit)
    return Shown(
        figure.title, text, figure.metric, figure.meaning, _age(figure, known, now), figure.since_start
    )


def _age(figure: Figure, known: Known[Samples], now: datetime) -> float | None:
    """Return how old a figure is: since we read it, and since the exporter read where it is from."""
    read = seconds_since(known.read_at, now)
    if read is None or known.value is None:
        return None
    source = known.value.of(_SOURCE_AGE, source=figure.source) if figure.source else []
    return read + max((sample.value for sample in source), default=0.0)


def value_of(figure: Figure, known: Known[Samples]) -> float | None:
    """Return a figure; None when what it is made of was not read."""
    if known.value is None:
        return None
    if figure.how is How.RATE:
        if known.before is None or known.before_at is None or known.read_at is None:
            return None
        seconds = (known.read_at - known.before_at).total_seconds()
        rises = [
            known.value.rises_since(known.before, figure.metric, labels) for labels in figure.alternatives
        ]
        found = [rise for rise in rises if rise is not None]
        return sum(found) / seconds if found and seconds > 0 else None
    values = [
        sample.value for labels in figure.alternatives for sample in known.value.of(figure.metric, **labels)
    ]
    if not values:
        return None
    if figure.how is How.GREATEST:
        return max(values)
    return min(values) if figure.how is How.LEAST else sum(values)


def _tables(samples: Samples, late: float) -> tuple[TableRow, ...]:
    names = {sample.labels.get("table", "") for sample in samples.of(f"{PREFIX}table_rows")}

    def cell(what: str, table: str, unit: Unit, more: float = 0) -> str:
        found = samples.of(f"{PREFIX}table_{what}", table=table)
        return text_of(found[0].value + more, unit) if found else UNKNOWN

    return tuple(
        TableRow(
            name,
            (
                cell("commit_age_seconds", name, Unit.SECONDS, late),
                cell("rows", name, Unit.COUNT),
                cell("bytes", name, Unit.BYTES),
                cell("files", name, Unit.COUNT),
                cell("snapshots", name, Unit.COUNT),
                cell("oldest_snapshot_age_seconds", name, Unit.SECONDS, late),
            ),
        )
        for name in sorted(names)
    )


def _works(samples: Samples, late: float) -> tuple[TableRow, ...]:
    ages = {sample.labels.get("work", ""): sample.value for sample in samples.of(f"{PREFIX}work_age_seconds")}
    lates = {
        sample.labels.get("work", ""): sample.value for sample in samples.of(f"{PREFIX}work_late_seconds")
    }
    return tuple(
        TableRow(
            work,
            (
                text_of(ages[work] + late, Unit.SECONDS) if work in ages else "never",
                "on time" if not lates.get(work) else text_of(lates[work] + late, Unit.SECONDS),
            ),
        )
        for work in sorted(ages.keys() | lates.keys())
    )


def _sources(samples: Samples, late: float) -> tuple[TableRow, ...]:
    up = {
        sample.labels.get("source", ""): sample.value for sample in samples.of(f"{PREFIX}exporter_source_up")
    }

    def age(source: str) -> str:
        found = samples.of(_SOURCE_AGE, source=source)
        return text_of(found[0].value + late, Unit.SECONDS) if found else UNKNOWN

    return tuple(
        TableRow(source, ("answers" if up[source] else "does not answer", age(source)))
        for source in sorted(up)
    )
