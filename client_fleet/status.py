"""Shows how a run goes: a live table in a terminal, a line now and then elsewhere, the tally at the end."""

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from client_fleet.tally import Tally

LIVE_SECONDS: Final = 0.5
LINE_SECONDS: Final = 10.0
_MEGABYTE: Final = 1_000_000


class Status:
    """What to say about `tally`; rates are over the whole run, or over the time since the last line."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally = tally
        self._console = console
        self._started = time.monotonic()
        self._before = (self._started, 0, 0)

    async def show(self) -> None:
        """Show the status until cancelled."""
        if not self._console.is_terminal:
            while True:
                await asyncio.sleep(LINE_SECONDS)
                self._console.print(self._line(), soft_wrap=True, highlight=False)
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._table(self._recent_rates()), refresh=True)
                await asyncio.sleep(LIVE_SECONDS)

    def summary(self) -> Table:
        """Return the tally of the whole run."""
        tally, seconds = self._tally, self._seconds()
        return self._table((tally.acknowledged / seconds, tally.body_bytes / seconds / _MEGABYTE))

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def _recent_rates(self) -> tuple[float, float]:
        now, acknowledged, sent_bytes = time.monotonic(), self._tally.acknowledged, self._tally.body_bytes
        then, acknowledged_then, bytes_then = self._before
        self._before = now, acknowledged, sent_bytes
        seconds = max(now - then, 1e-9)
        return (acknowledged - acknowledged_then) / seconds, (sent_bytes - bytes_then) / seconds / _MEGABYTE

    def _table(self, rates: tuple[float, float]) -> Table:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold")
        table.add_column()
        for name, value in self._facts(rates):
            table.add_row(name, value)
        return table

    def _line(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self._facts(self._recent_rates()))

    def _facts(self, rates: tuple[float, float]) -> Iterator[tuple[str, str]]:
        tally = self._tally
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.acknowledged_kinds.items()))
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(tally.statuses.items()))
        yield "time", f"{self._seconds():.0f} s"
        yield "pings", f"{tally.pings:,} in {tally.attempts:,} attempts ({tally.retries:,} retries)"
        yield "acknowledged", f"{tally.acknowledged:,}" + (f" ({kinds})" if kinds else "")
        yield "rate", f"{rates[0]:,.1f} pings/s, {rates[1]:.2f} MB/s"
        yield "answers", statuses or "none"
        yield "latency", f"p50 {_milliseconds(tally, 0.5)}, p99 {_milliseconds(tally, 0.99)}"
        if tally.connection_failures:
            yield "no answer", f"{tally.connection_failures:,}"
        if tally.refused:
            yield "refused (4xx)", f"{tally.refused:,}"
        if tally.dropped:
            yield "dropped", f"{tally.dropped:,}: more waited than a client keeps"
        if tally.unsent:
            yield "not delivered", f"{tally.unsent:,} when the fleet ended"


def _milliseconds(tally: Tally, share: float) -> str:
    seconds = tally.latencies.percentile(share)
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
