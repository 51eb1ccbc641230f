"""Which share of the pings of a document type is usually refused: what a batch is compared with.

A usual share follows the shares of batches slowly, by the time between them and not by their pings: however
many pings a stranger posts in a minute, the usual share moves by no more than a minute's worth.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, Field

from telemetry_lake.storage.records import Record

HALF_LIFE: Final = timedelta(days=7)
"""After so long a new share counts half. An alarm that is not answered over a weekend goes on."""
LEARNED_AT_ONCE_MAX: Final = timedelta(hours=1)
"""For how long one batch can count: one that comes after a week of silence says little about that week."""


class UsualShare(Record):
    """What is usual of one document type, as learned by the time `learned_at`."""

    refused_percent: float
    learned_at: AwareDatetime


class UsualShares(Record):
    """The usual shares by document type, written `<namespace>/<document type>`."""

    by_type: dict[str, UsualShare] = Field(default_factory=dict)

    def refused_percent(self, document_type: str) -> float:
        """Return how many of a hundred pings of a type are usually refused, 0 for one that is new."""
        usual = self.by_type.get(document_type)
        return 0.0 if usual is None else usual.refused_percent

    def learn(self, refused_percents: Mapping[str, float], at: datetime) -> "UsualShares":
        """Return the usual shares after a batch that was audited at the aware time `at`.

        `refused_percents` are the shares of its pings that were refused, by document type.
        """
        learned = {
            document_type: _followed(self.by_type.get(document_type), percent, at)
            for document_type, percent in refused_percents.items()
        }
        return UsualShares(by_type={**self.by_type, **learned})


def _followed(usual: UsualShare | None, percent: float, at: datetime) -> UsualShare:
    if usual is None:
        return UsualShare(refused_percent=0.0, learned_at=at)
    passed = min(at - usual.learned_at, LEARNED_AT_ONCE_MAX)
    if passed <= timedelta():
        return usual
    weight = 1 - 0.5 ** (passed / HALF_LIFE)
    moved = usual.refused_percent + weight * (percent - usual.refused_percent)
    return UsualShare(refused_percent=moved, learned_at=at)
