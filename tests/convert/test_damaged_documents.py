"""Checked code, unchecked code and plain Python make the same of damaged documents."""

import itertools

import pytest

from lake_testing.damaged_documents import (
    BATCH_DOCUMENTS,
    CheckedProcess,
    Work,
    batches,
    checked_process,
    outcome_of,
    shrunk,
)

SEED = 20261129
DOCUMENTS = 20_000
LONG_SEED = SEED + 1
LONG_DOCUMENTS = 2_000_000
LONG_CONVERT_EVERY = 100
"""So many batches of the long run are only read; the next one is converted as well, by all three ways."""


def outcomes(checked: CheckedProcess, works: tuple[Work, ...], documents: list[bytes]) -> list[str]:
    """What becomes of a batch: by the checked variant, and here by each work; the first two are the same."""
    checked.send(works[0], documents)
    here = [outcome_of(work, documents) for work in works]
    return [checked.outcome(), *here]


def compare(checked: CheckedProcess, works: tuple[Work, ...], documents: list[bytes], where: str) -> None:
    def differ(some: list[bytes]) -> bool:
        return len(set(outcomes(checked, works, some))) > 1

    if not differ(documents):
        return
    for document in documents:
        if differ([document]):
            small = shrunk(document, lambda shorter: differ([shorter]))
            pytest.fail(f"{where}: {document!r}\nshrunk: {small!r}\n{outcomes(checked, works, [small])}")
    pytest.fail(f"{where}: only all of the batch together differ: {outcomes(checked, works, documents)}")


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_what_becomes_of_a_damaged_document_is_the_same_three_times():
    with checked_process() as checked:
        for number, documents in enumerate(batches(SEED, DOCUMENTS)):
            where = f"seed {SEED}, batch {number}"
            compare(checked, (Work.CONVERT, Work.CONVERT_PLAINLY), documents, where)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_two_million_damaged_documents_are_read_the_same_twice():
    """All are read by the checked and the unchecked parser, one batch in 100 is converted by all three ways.

    Converting all of them three times would take an hour of a core.
    """
    with checked_process() as checked:
        for number, documents in enumerate(batches(LONG_SEED, LONG_DOCUMENTS)):
            where = f"seed {LONG_SEED}, batch {number}"
            compare(checked, (Work.READ,), documents, where)
            if number % LONG_CONVERT_EVERY == 0:
                compare(checked, (Work.CONVERT, Work.CONVERT_PLAINLY), documents, where)


def test_damage_is_the_same_for_the_same_seed_and_reaches_the_parser():
    first, again = ([*itertools.chain(*batches(SEED, 2 * BATCH_DOCUMENTS))] for _ in range(2))
    assert first == again
    assert len(set(first)) > 0.9 * len(first)
