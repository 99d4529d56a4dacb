"""What the E2B SDK raises, as NOVA's errors. The order counts: the SDK's classes for a vanished and for an
unreachable sandbox are subclasses of its timeout, and raw httpx and JSON errors leak from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nova_pipelines.domain.errors import (
    CredentialError,
    NovaError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)


class CloudFault(NovaError):
    """A failure of E2B, not of the user's code, key or template: what counts for the circuit breaker."""


class CloudBusy(CloudFault, TransientError):
    """E2B did not take the request, or cannot be reached: nothing was done."""


class SandboxLost(CloudFault, TransientError):
    """The sandbox is gone, or cannot be reached any more, and nothing outside can have been done in it."""


class CloudUnclear(CloudFault, OutcomeUnknown):
    """The answer was lost of a request that may have been done."""


def ends_of_a_command() -> tuple[type[Exception], ...]:
    """How a command may end that is no fault of the cloud: a non-zero exit, or out of time."""
    import e2b

    return (e2b.CommandExitException, e2b.TimeoutException)


@contextlib.contextmanager
def errors_mapped(
    doing: str, *, inside: bool = False, effects: bool = False, keep: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turns the SDK's errors into NovaErrors. `keep`: those that the caller handles itself.

    `inside`: the step speaks to a sandbox, not to the API, so that what fails is that sandbox. `effects`: it may have
    done something that lasts before its answer was lost (a create, a run with the network), so that a lost answer or
    a lost sandbox is CloudUnclear; else both are transient.
    """
    try:
        yield
    except NovaError:
        raise
    except Exception as error:
        lost = CloudUnclear if effects else SandboxLost if inside else CloudBusy
        mapped = _mapped(error, f"E2B, {doing}: {type(error).__name__}: {str(error)[:500]}", lost, keep)
        if mapped is error:
            raise
        raise mapped from error


def _mapped(error: Exception, said: str, lost: type[CloudFault], keep: tuple[type[Exception], ...]) -> Exception:
    import e2b
    import httpx

    gone = (e2b.SandboxNotRunningException, e2b.SandboxNotFoundException, e2b.SandboxUnreachableException)
    if isinstance(error, gone):
        return lost(said) if issubclass(lost, CloudUnclear) else SandboxLost(said)
    if isinstance(error, keep):
        return error
    refused = (e2b.RateLimitException, e2b.ServiceBusyException, httpx.ConnectError, httpx.ConnectTimeout)
    if isinstance(error, refused):
        return CloudBusy(said)
    if isinstance(error, e2b.AuthenticationException):
        return CredentialError(said, remedy="check E2B_API_KEY (E2B dashboard, API keys)")
    if isinstance(error, (e2b.InvalidArgumentException, e2b.TemplateException, e2b.BuildException)):
        return PermanentError(said, remedy="check E2B_TEMPLATE_ID and the limits of the node")
    if isinstance(error, e2b.SandboxException) and 400 <= (error.status_code or 0) < 500:
        return PermanentError(said, remedy="check E2B_TEMPLATE_ID and the limits of the E2B account")
    # a timeout of a request, a 5xx, a garbled answer, a cut connection
    return lost(said)
