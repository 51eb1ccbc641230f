"""What messages may show."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from telemetry_lake.failures import AccessRefused, RetriableError, without_user_info

WORDS = st.text("abcXYZ019._~-%!$&'()*+,;=:", min_size=1, max_size=20)
REST = st.text("abc/?#=&@ \n", max_size=20)


@given(scheme=st.sampled_from(["https", "postgresql+psycopg2", "s3"]), user=WORDS, rest=REST, before=REST)
def test_a_message_shows_no_password_of_a_url(scheme, user, rest, before):
    shown = without_user_info(f"{before} {scheme}://{user}:qQ7@host.example/{rest}")
    assert shown == f"{before} {scheme}://host.example/{rest}"
    assert "qQ7" not in str(RetriableError(f"{scheme}://{user}:qQ7@host.example"))


@given(st.text("abc/@:?# ", max_size=40).filter(lambda text: "://" not in text))
def test_other_texts_stay_as_they_are(text):
    assert without_user_info(text) == text
    assert without_user_info(f"s3://lake/ledger/claims/{text}") == f"s3://lake/ledger/claims/{text}"


def test_a_refusal_names_what_is_missing_and_travels_between_processes():
    error = AccessRefused.to("reading s3://raw/a", "it needs the right s3:GetObject", "Access Denied.")
    assert str(error).startswith("reading s3://raw/a is refused: it needs the right s3:GetObject (Access Den")
    assert "telemetry_lake/deploy/roles.py" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
