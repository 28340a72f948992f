"""Why a message is refused; the subscriber turns a refusal into an answer, an audit line or a count."""

from __future__ import annotations

from schemas.envelope import Header
from schemas.errors import PermanentError


class RefusalError(PermanentError):
    """A message is refused.

    Attributes:
        code: stable word: ``invalid``, ``forged``, ``chain-unknown``, ``misaddressed``, ``expired``, ``denied``.
        header: the signed header as far as it could be read (not to be believed unless ``proven``).
        proven: the sender's identity was proven, so that it may be answered and audited by name.
    """

    def __init__(self, code: str, reason: str, *, header: Header | None = None, proven: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.header = header
        self.proven = proven
