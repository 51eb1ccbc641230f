"""The queue of index messages in SQS, and the queue of its dead letters.

Deletes are checked entry by entry, and a delete whose receipt is stale counts as done: SQS answers
success for it, ElasticMQ answers `ReceiptHandleIsInvalid`, and in both cases the message either is
gone or comes again, which the ledger makes harmless.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.failures import RetriableError
from telemetry_lake.raw.index_message import IndexMessage, InvalidIndexMessage
from telemetry_lake.settings import SqsSettings
from telemetry_lake.storage.aws import aws_failures, client_arguments

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

SQS_BATCH_MAX_ENTRIES: Final = 10
"""The most messages that one call of SQS receives, sends or deletes."""
ATTRIBUTE_MAX_CHARACTERS: Final = 2_000
"""Reasons are cut to this length, well below what SQS takes for a message with its attributes."""
_STALE_RECEIPT: Final = {"ReceiptHandleIsInvalid", "InvalidParameterValue"}


class QueueMessage(Protocol):
    """What is needed of a received message to move it."""

    @property
    def receipt(self) -> str:
        """What SQS wants to see to delete the message."""

    @property
    def receive_count(self) -> int:
        """How often the message has been received so far."""

    @property
    def body(self) -> str:
        """The text of the message."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message as received: its text, its receipt and how often it has been received so far.

    `index` is the index message in the text, or what is wrong with it. `reasons` are the attributes that
    `move_to_dead_letters` gave the message; empty when it was never there.
    """

    message_id: str
    receipt: str
    receive_count: int
    body: str
    index: IndexMessage | InvalidIndexMessage
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueState:
    """About how many messages a queue holds, and for how long it keeps one.

    `retention` is None when the queue does not say: ElasticMQ keeps messages until they are deleted.
    """

    waiting: int
    hidden: int
    retention: timedelta | None

    @property
    def is_empty(self) -> bool:
        """Whether no message is left, neither to be received nor hidden."""
        return self.waiting == self.hidden == 0


class IndexQueue:
    """The queue of `settings` and its dead-letter queue; safe to share between threads."""

    def __init__(self, settings: SqsSettings, client: "SQSClient | None" = None) -> None:
        """`client` takes the place of a new client of `settings`."""
        self._settings = settings
        self._sqs: SQSClient = client or boto3.client("sqs", **client_arguments(settings))  # type: ignore[call-overload]
        self._urls: dict[str, str] = {}

    def dead_letters(self) -> Self:
        """Return the dead-letter queue of `settings`, to be read like the other one."""
        settings = self._settings
        return type(self)(
            settings.model_copy(update={"index_queue_name": settings.dead_letter_queue_name}), self._sqs
        )

    def send(self, message: IndexMessage) -> None:
        """Put the pointer to one raw object on the queue."""
        with aws_failures(f"sending to the queue {self._settings.index_queue_name}"):
            self._sqs.send_message(
                QueueUrl=self._url(self._settings.index_queue_name), MessageBody=message.to_json()
            )

    def send_all(self, messages: Sequence[IndexMessage]) -> None:
        """Put these pointers on the queue. Raises RetriableError when SQS did not take some of them."""
        for start in range(0, len(messages), SQS_BATCH_MAX_ENTRIES):
            group = messages[start : start + SQS_BATCH_MAX_ENTRIES]
            with aws_failures(f"sending to the queue {self._settings.index_queue_name}"):
                answer = self._sqs.send_message_batch(
                    QueueUrl=self._url(self._settings.index_queue_name),
                    Entries=[
                        {"Id": str(number), "MessageBody": message.to_json()}
                        for number, message in enumerate(group)
                    ],
                )
            if failed := answer.get("Failed", []):
                reason = failed[0].get("Message", failed[0]["Code"])
                raise RetriableError(f"SQS did not take {len(failed)} of {len(group)} messages: {reason}")

    def receive(self, max_messages: int, *, wait_seconds: int) -> list[ReceivedMessage]:
        """Return at most `max_messages` (1 to 10), waiting `wait_seconds` (0 to 20) for the first one."""
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
                _index_message(message["Body"]),
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

    def move_to_dead_letters(self, message: QueueMessage, reasons: Mapping[str, str]) -> None:
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
        """Return about how many messages could be received now."""
        with aws_failures(f"asking the queue {self._settings.index_queue_name} for its length"):
            answer = self._sqs.get_queue_attributes(
                QueueUrl=self._url(self._settings.index_queue_name),
                AttributeNames=["ApproximateNumberOfMessages"],
            )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def state(self) -> QueueState:
        """Return what the queue says about itself; SQS may be a minute behind."""
        with aws_failures(f"asking the queue {self._settings.index_queue_name} for its state"):
            answer = self._sqs.get_queue_attributes(
                QueueUrl=self._url(self._settings.index_queue_name),
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "MessageRetentionPeriod",
                ],
            )
        attributes = answer["Attributes"]
        retention = attributes.get("MessageRetentionPeriod")
        return QueueState(
            waiting=int(attributes["ApproximateNumberOfMessages"]),
            hidden=int(attributes["ApproximateNumberOfMessagesNotVisible"]),
            retention=None if retention is None else timedelta(seconds=int(retention)),
        )

    def is_reachable(self) -> bool:
        """Return whether the queue answers."""
        try:
            self._sqs.get_queue_url(QueueName=self._settings.index_queue_name)
        except (BotoCoreError, ClientError):
            return False
        return True

    def _url(self, queue_name: str) -> str:
        if queue_name not in self._urls:
            self._urls[queue_name] = self._sqs.get_queue_url(QueueName=queue_name)["QueueUrl"]
        return self._urls[queue_name]


def _index_message(body: str) -> IndexMessage | InvalidIndexMessage:
    try:
        return IndexMessage.from_json(body)
    except InvalidIndexMessage as error:
        return error


def _calls(receipts: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield `receipts` in the groups of ten that one call of SQS takes."""
    rest = list(receipts)
    for start in range(0, len(rest), SQS_BATCH_MAX_ENTRIES):
        yield rest[start : start + SQS_BATCH_MAX_ENTRIES]
