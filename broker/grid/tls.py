"""TLS to a service of the grid, with a grid credential as client certificate.

Promises: the server's certificate is verified as every other one here is (trust directory with CRLs and signing
policies) and bears the host's name, or the DN that was asked for; the private key goes from memory to the TLS library
through an anonymous file that no path leads to; everything together ends by a deadline; what is read is bounded.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.x509.oid import NameOID

from ..identity import IdentityError, TrustStore, parse_certificate, verify_chain
from .errors import GridRefusedError, GridUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from ..identity import Credential

RECORD = 16 * 1024
"""Largest TLS record (RFC 8446 §5.1); both sides of these protocols take one record for one message."""

MAX_READ = 256 * 1024
"""All that a server may say in one conversation: a chain of ten large certificates is a tenth of it."""


class Link:
    """One conversation with a server.

    Args:
        wire: the TLS connection.
        deadline: on the monotonic clock.
    """

    def __init__(self, wire: ssl.SSLSocket, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.close()

    def send(self, data: bytes) -> None:
        """Send one message as one record.

        Raises:
            GridRefusedError: it does not fit into a record.
            GridUnavailableError: the connection broke.
        """
        if len(data) > RECORD:
            raise GridRefusedError(f"a message of {len(data)} bytes is more than the service reads at once")
        with _explained():
            self._wire.settimeout(_left(self._deadline))
            self._wire.sendall(data)

    def receive(self) -> bytes:
        """Some bytes; empty at the end of the conversation.

        Raises:
            GridRefusedError: the server says far more than anybody asked for.
            GridUnavailableError: the connection broke, or the time is over.
        """
        with _explained():
            self._wire.settimeout(_left(self._deadline))
            data = self._wire.recv(RECORD)
        self._read += len(data)
        if self._read > MAX_READ:
            raise GridRefusedError(f"the service sent more than {MAX_READ} bytes")
        return data


def connect(
    host: str, port: int, credential: Credential, trust_dir: Path, *, server_dn: str = "", seconds: float = 30.0
) -> Link:
    """Connect and prove both sides.

    Args:
        host: name or address.
        port: TCP port.
        credential: who we are; its chain is sent.
        trust_dir: CA directory in grid layout.
        server_dn: canonical DN that the server must have; by default its certificate must bear the host's name.
        seconds: for the whole conversation.

    Raises:
        GridUnavailableError: nobody answers in time.
        GridRefusedError: the server is not who it should be, or does not like our certificate.
    """
    deadline = time.monotonic() + seconds
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # done below: DNs and names in CN are the grid's custom, and the library knows none
    context.load_verify_locations(capath=str(trust_dir))
    _use(context, credential)
    with contextlib.ExitStack() as stack:
        with _explained():
            plain = stack.enter_context(socket.create_connection((host, port), timeout=_left(deadline)))
            plain.settimeout(_left(deadline))
            wire = stack.enter_context(context.wrap_socket(plain, server_hostname=host))
        _check_server(wire.getpeercert(binary_form=True), host, server_dn, trust_dir)
        stack.pop_all()
    return Link(wire, deadline)


def _use(context: ssl.SSLContext, credential: Credential) -> None:
    """The TLS library reads keys from files only: give it one that lives in memory and has no name."""
    handle = os.memfd_create("tls", os.MFD_CLOEXEC)
    with os.fdopen(handle, "wb") as file:
        file.write(credential.to_pem())
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        except (ssl.SSLError, OSError):
            # The library's message is not repeated: it may quote what it read.
            raise GridRefusedError("the TLS library cannot use this credential") from None


def _check_server(certificate: bytes | None, host: str, server_dn: str, trust_dir: Path) -> None:
    try:
        chain = verify_chain([certificate or b""], TrustStore.load(trust_dir), None, dt.datetime.now(dt.UTC))
        leaf = parse_certificate(certificate or b"")
    except IdentityError as error:
        raise GridRefusedError(f"the certificate of {host} is refused: {error}") from None
    if server_dn:
        if chain.identity != server_dn:
            raise GridRefusedError(f"{host} is {chain.identity}, not {server_dn}")
    elif not _bears(leaf.x509, host):
        raise GridRefusedError(f"the certificate of {host} is of another host: {chain.identity}")


def _bears(certificate: x509.Certificate, host: str) -> bool:
    """RFC 6125 without wildcards; the last CN (with Globus' ``host/``) counts only where no alternative name stands."""
    wanted = host.lower().rstrip(".")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        names = None
    if names is not None:
        addresses = names.get_values_for_type(x509.IPAddress)
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(wanted) in addresses
        hosts = names.get_values_for_type(x509.DNSName)
        if hosts:
            return wanted in {name.lower() for name in hosts}
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return bool(common) and str(common[-1].value).lower().rpartition("/")[2] == wanted


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise GridRefusedError(f"the server's certificate is refused: {error.verify_message}") from None
    except TimeoutError:
        raise GridUnavailableError("the service did not answer in time") from None
    except ssl.SSLError as error:
        reason = (error.reason or "broken off").replace("_", " ").lower()
        raise GridUnavailableError(f"TLS: {reason}") from None
    except OSError as error:
        raise GridUnavailableError(f"cannot talk to the service: {error.strerror or error}") from None
