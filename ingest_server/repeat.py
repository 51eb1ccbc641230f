"""Does something again and again on an event loop."""

import asyncio
from collections.abc import Callable


async def every(seconds: float, act: Callable[[], None]) -> None:
    """Call `act` after each pause of `seconds`, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        act()
