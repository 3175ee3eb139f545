"""The refusals of Kinesis, under the names that its clients know.

KinesisError
  any operation's refusal: the code is the exception's name in the service's API
"""


class KinesisError(Exception):
    """A request was refused; `code` is what a client sees as the error's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """500 for the service's own failures, which a client may not take for a refusal; 400 otherwise."""
        return 500 if self.code in ("InternalFailure", "ServiceUnavailable") else 400


def invalid(message: str) -> KinesisError:
    return KinesisError("InvalidArgumentException", message)


def not_found(message: str) -> KinesisError:
    return KinesisError("ResourceNotFoundException", message)


def throttled(message: str) -> KinesisError:
    return KinesisError("ProvisionedThroughputExceededException", message)


def malformed(message: str) -> KinesisError:
    return KinesisError("ValidationException", message)
