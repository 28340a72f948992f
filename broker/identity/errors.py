"""Errors of identity checks; each message is a reason that may be shown to the peer and written to the audit."""

from __future__ import annotations

from schemas.errors import PermanentError


class IdentityError(PermanentError):
    """The certificate chain is not acceptable.

    Attributes:
        identity: canonical DN of the end entity whose name the chain bears, once that certificate itself is
            proven. A word for the audit and the message to a person, never proof of who sent the chain: what
            failed may be the link between the two.
    """

    identity: str | None

    def __init__(self, reason: str | None = None, *, identity: str | None = None) -> None:
        super().__init__(reason)
        self.identity = identity

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return str(self)


class CredentialError(PermanentError):
    """A credential cannot be loaded, saved or used."""
