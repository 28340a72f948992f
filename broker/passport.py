"""How a client proves who it is: what its session logs in with and signs with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from schemas.identity import make_client_id

from .login import make_assertion
from .signing import Signer

if TYPE_CHECKING:
    from .identity import Credential, VerifiedChain


class Passport(Protocol):
    """What a session needs of its owner."""

    @property
    def identity(self) -> str:
        """Canonical DN; empty for who has none yet."""
        ...

    @property
    def client(self) -> str:
        """Client id, the broker's user name."""
        ...

    def password(self, *, audience: str, group: str, now: float, login: str) -> str:
        """What stands in place of a password for one login, whose id is ``login``."""
        ...

    def signer(self, group: str) -> Signer:
        """Signs messages for a group.

        Raises:
            PermanentError: this client signs nothing.
        """
        ...


class ChainPassport:
    """A certificate chain and its key.

    Args:
        credential: both.
        chain: the same chain, verified.
        client: client id; a fresh one if empty.
    """

    def __init__(self, credential: Credential, chain: VerifiedChain, client: str = "") -> None:
        self._credential = credential
        self._thumbprint = chain.thumbprint_b64url
        self.identity = chain.identity
        self.client = client or make_client_id(chain.identity, os.urandom(8).hex())

    def password(self, *, audience: str, group: str, now: float, login: str) -> str:
        """A login assertion; see :mod:`broker.login`."""
        return make_assertion(
            self._credential, client=self.client, audience=audience, group=group, now=now, login=login
        )

    def signer(self, group: str) -> Signer:
        """Signs with the chain's key."""
        return Signer(self._credential.key, self._thumbprint, self.identity, self.client, group)
