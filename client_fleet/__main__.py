"""`python -m client_fleet`: posts the pings of a simulated fleet to an ingest server, at a given rate."""

import asyncio
import contextlib
import secrets
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
import uvloop
from rich.console import Console

from client_fleet.pings import Pings, Shares
from client_fleet.proof import ProofFile
from client_fleet.sending import Sender, Target
from client_fleet.status import Status

DEFAULT_TARGET: Final = "http://127.0.0.1:8000"
HTTP_PORT: Final = 80
SEEDS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class _Run:
    target: Target
    rate: float
    duration_seconds: float | None
    seed: int
    shares: Shares
    clients: int
    connections: int


def fleet(
    target: Annotated[
        str, typer.Option(help="The ingest server or the balancer in front of it.")
    ] = DEFAULT_TARGET,
    rate: Annotated[
        float, typer.Option(min=0, help="Pings per second; 0 sends as fast as the connections take them.")
    ] = 20.0,
    duration: Annotated[float, typer.Option(min=0, help="Seconds; 0 sends until stopped (Ctrl-C).")] = 60.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The same seed sends the same document ids again, in the same order. Without one, every run "
            "is a new fleet.",
        ),
    ] = None,
    duplicates: Annotated[float, typer.Option(help="Share of pings that are sent twice.")] = 0.0,
    late: Annotated[float, typer.Option(help="Share of pings made days before they are sent.")] = 0.0,
    malformed: Annotated[float, typer.Option(help="Share of pings that the lake must reject.")] = 0.0,
    oversized: Annotated[
        float, typer.Option(help="Share of pings too large to be accepted (over 1 MiB).")
    ] = 0.0,
    clients: Annotated[int, typer.Option(min=1, help="How many clients take part.")] = 1_000,
    connections: Annotated[int, typer.Option(min=1, help="At most this many connections at once.")] = 64,
    acknowledged: Annotated[
        Path | None,
        typer.Option(
            help="Write a line of JSON for every acknowledged ping to this new file: its document id, its "
            "kind and where it has to be found.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the tally at the end.")] = False,
) -> None:
    """Simulate a fleet of Firefox and Glean clients that post telemetry pings.

    Clients behave as real ones: they delete a ping once it is answered 2xx or 4xx, and send it again later
    after a 5xx or a broken connection. Exits with 1 when no ping at all was acknowledged.
    """
    console = Console()
    try:
        run = _Run(
            target=_target(target),
            rate=rate,
            duration_seconds=duration or None,
            seed=secrets.randbelow(SEEDS) if seed is None else seed,
            shares=Shares(duplicates, late, malformed, oversized),
            clients=clients,
            connections=connections,
        )
        proof = None if acknowledged is None else ProofFile(acknowledged)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except FileExistsError as error:
        raise typer.BadParameter(
            f"{acknowledged} exists already, and the proofs of two runs must not be mixed: name a new file"
        ) from error
    except OSError as error:
        raise typer.BadParameter(f"the file for --acknowledged cannot be written: {error}") from error
    with proof or contextlib.nullcontext():
        acknowledged_count = uvloop.run(_send(run, proof, console, quiet=quiet))
    if not acknowledged_count:
        console.print(
            f"No ping was acknowledged. Is an ingest server listening at {target}? 'make status' shows the "
            "local stack.",
            style="red",
        )
        sys.exit(1)


async def _send(run: _Run, proof: ProofFile | None, console: Console, *, quiet: bool) -> int:
    pings = Pings(run.seed, run.clients, run.shares, lambda: datetime.now(UTC))
    sender = Sender(
        pings,
        run.target,
        rate=run.rate,
        connections_max=run.connections,
        seed=run.seed,
        proof=proof,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sender.stop)
    if not quiet:
        pace = f"{run.rate:g} pings/s" if run.rate else "as many pings as it takes"
        console.print(
            f"{run.clients:,} clients send {pace} to {run.target} (seed {run.seed})",
            highlight=False,
        )
    status = Status(sender.tally, console)
    shown = None if quiet else loop.create_task(status.show())
    await sender.run(run.duration_seconds)
    if shown is not None:
        shown.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await shown
    console.print(status.summary())
    return sender.tally.acknowledged


def _target(url: str) -> Target:
    """Return host and port of `url`; raises ValueError for anything but a plain HTTP address."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ValueError(f"--target takes an address such as {DEFAULT_TARGET}, not {url!r}")
    return Target(parts.hostname, parts.port or HTTP_PORT)


def main() -> None:
    """Run the command line."""
    typer.run(fleet)


if __name__ == "__main__":
    main()
