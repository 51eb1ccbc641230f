"""The queue of index messages in SQS, and the queue of its dead letters.

Deletes are checked entry by entry, and a delete whose receipt is stale counts as done: SQS answers
success for it, ElasticMQ answers `ReceiptHandleIsInvalid`, and in both cases the message either is
gone or comes again, which the ledger makes harmless.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.failures import RetriableError
from telemetry_lake.index_message import IndexMessage
from telemetry_lake.object_store import aws_failures, client_arguments
from telemetry_lake.settings import SqsSettings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

SQS_BATCH_MAX_ENTRIES: Final = 10
"""The most messages that one call of SQS receives, sends or deletes."""
ATTRIBUTE_MAX_CHARACTERS: Final = 2_000
"""Reasons are cut to this length, well below what SQS takes for a message with its attributes."""
_STALE_RECEIPT: Final = {"ReceiptHandleIsInvalid", "InvalidParameterValue"}


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message as received: its text, its receipt and how often it has been received so far.

    `reasons` are the attributes that `move_to_dead_letters` gave it; empty for a message that never died.
    """

    message_id: str
    receipt: str
    receive_count: int
    body: str
    reasons: Mapping[str, str] = field(default_factory=dict)


class IndexQueue:
    """The queue of `settings` and its dead-letter queue; safe to share between threads."""

    def __init__(self, settings: SqsSettings) -> None:
        self._settings = settings
        self._sqs: SQSClient = boto3.client("sqs", **client_arguments(settings))  # type: ignore[call-overload]
        self._urls: dict[str, str] = {}

    @classmethod
    def of_dead_letters(cls, settings: SqsSettings) -> Self:
        """The dead-letter queue of `settings`, to be read like the other one."""
        return cls(settings.model_copy(update={"index_queue_name": settings.dead_letter_queue_name}))

    def send(self, message: IndexMessage) -> None:
        """Put the pointer to one raw object on the queue."""
        with aws_failures(f"sending to the queue {self._settings.index_queue_name}"):
            self._sqs.send_message(
                QueueUrl=self._url(self._settings.index_queue_name), MessageBody=message.to_json()
            )

    def receive(self, max_messages: int, *, wait_seconds: int) -> list[ReceivedMessage]:
        """At most `max_messages` (1 to 10) messages, waiting `wait_seconds` (0 to 20) for the first one."""
        with aws_failures(f"receiving from the queue {self._settings.index_queue_name}"):
            answer = self._sqs.receive_message(
                QueueUrl=self._url(self._settings.index_queue_name),
                MaxNumberOfMessages=min(max_messages, SQS_BATCH_MAX_ENTRIES),
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=self._settings.visibility_timeout_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
                MessageAttributeNames=["All"],
            )
        return [
            ReceivedMessage(
                message["MessageId"],
                message["ReceiptHandle"],
                int(message["Attributes"]["ApproximateReceiveCount"]),
                message["Body"],
                {
                    name: attribute.get("StringValue", "")
                    for name, attribute in message.get("MessageAttributes", {}).items()
                },
            )
            for message in answer.get("Messages", [])
        ]

    def extend_visibility(self, receipts: Iterable[str]) -> None:
        """Keep these messages hidden for another visibility timeout, counted from now."""
        self._hide(receipts, self._settings.visibility_timeout_seconds)

    def show_again(self, receipts: Iterable[str]) -> None:
        """Let these messages be received again at once."""
        self._hide(receipts, 0)

    def _hide(self, receipts: Iterable[str], seconds: int) -> None:
        for receipts_of_call in _calls(receipts):
            with aws_failures(f"hiding or showing messages of the queue {self._settings.index_queue_name}"):
                self._sqs.change_message_visibility_batch(
                    QueueUrl=self._url(self._settings.index_queue_name),
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
                        for number, receipt in enumerate(receipts_of_call)
                    ],
                )

    def delete(self, receipts: Iterable[str]) -> None:
        """Delete these messages. Raises RetriableError when SQS could not delete some of them."""
        for receipts_of_call in _calls(receipts):
            with aws_failures(f"deleting from the queue {self._settings.index_queue_name}"):
                answer = self._sqs.delete_message_batch(
                    QueueUrl=self._url(self._settings.index_queue_name),
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": receipt}
                        for number, receipt in enumerate(receipts_of_call)
                    ],
                )
            failed = [entry for entry in answer.get("Failed", []) if entry["Code"] not in _STALE_RECEIPT]
            if failed:
                reason = failed[0].get("Message", failed[0]["Code"])
                raise RetriableError(
                    f"SQS did not delete {len(failed)} of {len(receipts_of_call)} messages: {reason}"
                )

    def move_to_dead_letters(self, message: ReceivedMessage, reasons: Mapping[str, str]) -> None:
        """Put `message` on the dead-letter queue with `reasons` as its attributes, then delete it here.

        A crash between the two leaves the message in both; moving it again adds a second dead letter,
        and replaying either is harmless.
        """
        with aws_failures(f"sending to the queue {self._settings.dead_letter_queue_name}"):
            self._sqs.send_message(
                QueueUrl=self._url(self._settings.dead_letter_queue_name),
                MessageBody=message.body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": text[:ATTRIBUTE_MAX_CHARACTERS] or "-"}
                    for name, text in reasons.items()
                },
            )
        self.delete([message.receipt])

    def waiting(self) -> int:
        """About how many messages could be received now."""
        with aws_failures(f"asking the queue {self._settings.index_queue_name} for its length"):
            answer = self._sqs.get_queue_attributes(
                QueueUrl=self._url(self._settings.index_queue_name),
                AttributeNames=["ApproximateNumberOfMessages"],
            )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def is_reachable(self) -> bool:
        """Whether the queue answers."""
        try:
            self._sqs.get_queue_url(QueueName=self._settings.index_queue_name)
        except (BotoCoreError, ClientError):
            return False
        return True

    def _url(self, queue_name: str) -> str:
        if queue_name not in self._urls:
            self._urls[queue_name] = self._sqs.get_queue_url(QueueName=queue_name)["QueueUrl"]
        return self._urls[queue_name]


def _calls(receipts: Iterable[str]) -> Iterator[Sequence[str]]:
    """`receipts` in the groups of ten that one call of SQS takes."""
    rest = list(receipts)
    for start in range(0, len(rest), SQS_BATCH_MAX_ENTRIES):
        yield rest[start : start + SQS_BATCH_MAX_ENTRIES]
