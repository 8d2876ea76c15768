"""The errors a user can meet: what it means, what to do. Anyone may import it; standard library only."""


class BiggerBoatError(Exception):
    """An error that a person can act on: printed as a sentence, never as a stack trace.

    ``message`` says what was expected, what came, and where; ``hint`` says what to do next. ``may_pass``: the cause is
    outside and may be gone in a while (a network, a service): whoever can wait may try again.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, may_pass: bool = False):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.may_pass = may_pass

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.hint}" if self.hint else self.message


class SettingsError(BiggerBoatError):
    """A setting is missing or not usable."""

    exit_code = 2


class LandingError(BiggerBoatError):
    """A source file cannot be landed; nothing of it has landed. The message names file and line."""


class WarehouseError(BiggerBoatError):
    """The warehouse cannot be opened, loaded or read."""


class DatasetError(BiggerBoatError):
    """A data set is missing, damaged, failed its checks, or its input days did."""


class TrainingError(BiggerBoatError):
    """There is too little or unusable data to fit a model."""


class BundleError(BiggerBoatError):
    """A model bundle is incomplete, altered, or of a contract version that is not read here."""


class GateRefused(BiggerBoatError):
    """A decision, not a fault: the version is not promoted; what serves goes on serving."""

    exit_code = 3


class RequestError(BiggerBoatError):
    """A request does not follow the endpoint contract. Carries the HTTP status and an error code."""

    def __init__(self, message: str, code: str = "invalid_request", status: int = 400):
        super().__init__(message)
        self.code = code
        self.status = status


class ServerError(BiggerBoatError):
    """The local server cannot start, or does not answer."""


class CloudError(BiggerBoatError):
    """AWS refused, cannot be reached, or a step that runs there cannot be started or ended badly."""
