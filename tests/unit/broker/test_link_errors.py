from __future__ import annotations

import ssl

import pytest
from pika import exceptions

from broker._link import classify
from broker.errors import BrokerRefusedError, BrokerUnavailableError, LoginRefusedError
from schemas.errors import ConfigurationError

REFUSED = repr(exceptions.ConnectionClosedByBroker(403, "ACCESS_REFUSED - Login was refused"))
NO_VHOST = repr(exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost none not found"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.ProbableAuthenticationError(REFUSED), LoginRefusedError),
        (exceptions.AuthenticationError("PLAIN"), LoginRefusedError),
        (exceptions.ProbableAccessDeniedError(NO_VHOST), BrokerRefusedError),
        (exceptions.AMQPConnectionError(ssl.SSLCertVerificationError("bad")), BrokerRefusedError),
        (exceptions.ProbableAuthenticationError(repr(exceptions.StreamLostError("reset"))), BrokerUnavailableError),
        (exceptions.IncompatibleProtocolError("lost"), BrokerUnavailableError),
        (exceptions.AMQPHeartbeatTimeout("idle"), BrokerUnavailableError),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), BrokerUnavailableError),
        (OSError(111, "Connection refused"), BrokerUnavailableError),
        (None, BrokerUnavailableError),
    ],
)
def test_failures_are_told_apart(error: BaseException | None, kind: type[Exception]) -> None:
    assert type(classify(error)) is kind


def test_an_error_of_ours_stays_itself() -> None:
    error = ConfigurationError("no proxy")
    assert classify(error) is error
