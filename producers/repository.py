"""The proxy repository for operators: look, change the master key, take proxies away.

Reached as :attr:`producers.Client.repository`. No private key ever comes out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from schemas.identity import canonical_dn
from schemas.messages.proxies import (
    DeleteProxies,
    QueryRepository,
    ReencryptRepository,
    RepositoryDeleted,
    RepositoryListing,
    RepositoryReencrypted,
    StoredProxy,
)
from schemas.registry import Message

PAGE = 500
"""Proxies per page of a listing; half of the message's bound."""

M = TypeVar("M", bound=Message)


class Ask(Protocol):
    """Sends a request and gives its answer."""

    def __call__(self, message: Message, answer: type[M]) -> M:
        """Ask; the answer is of this type."""


class ProxyRepository:
    """Operators' requests.

    Args:
        ask: sends a request and gives its answer.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def status(self) -> RepositoryListing:
        """Master keys and how many private keys each protects; no proxies."""
        return self._ask(QueryRepository(limit=0), RepositoryListing)

    def proxies(self, owner: str = "") -> Iterator[StoredProxy]:
        """Whose proxies are stored; of one owner (DN) or all.

        Raises:
            InvalidInputError: no DN.
        """
        wanted, offset = canonical_dn(owner) if owner else "", 0
        while True:
            page = self._ask(QueryRepository(owner=wanted, offset=offset, limit=PAGE), RepositoryListing)
            yield from page.proxies
            offset += PAGE
            if not page.more:
                return

    def reencrypt(self, told: Callable[[int, int], None] = lambda _done, _left: None) -> RepositoryReencrypted:
        """Have everything encrypted with the newest master key.

        Args:
            told: after each go, how many are done and how many are left.
        """
        done = 0
        while True:
            answer = self._ask(ReencryptRepository(), RepositoryReencrypted)
            done += answer.done
            told(done, answer.left)
            if not answer.left or not answer.done:
                return RepositoryReencrypted(
                    done=done, unreadable=answer.unreadable, left=answer.left, keys=answer.keys
                )

    def delete(self, owner: str, group: str = "", reason: str = "") -> int:
        """Have somebody's proxies forgotten; how many there were.

        Raises:
            InvalidInputError: no DN.
        """
        message = DeleteProxies(owner=canonical_dn(owner), group=group, reason=reason)
        return self._ask(message, RepositoryDeleted).count
