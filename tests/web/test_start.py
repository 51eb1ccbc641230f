"""What `python -m web` refuses to start with."""

from pathlib import Path

import pytest

from lake_testing.stack import Lake
from lake_testing.web_pages import RunningPages

EVERYWHERE = "0.0.0.0"


def test_other_machines_see_nothing_before_a_threshold_is_chosen(lake: Lake, tmp_path: Path) -> None:
    pages = RunningPages(lake, tmp_path, HOST=EVERYWHERE)
    with pytest.raises(
        AssertionError, match=r"no threshold of clients is set.*an explicit 0 shows everything"
    ):
        pages.start()
    chosen = RunningPages(lake, tmp_path, HOST=EVERYWHERE, MINIMUM_CLIENTS_ELSEWHERE="0")
    try:
        chosen.start()
    finally:
        chosen.kill()
