"""Two things that pika does not do by itself, at the two seams where it can be taught.

* Frames of many publications leave as a few large writes (:meth:`PackedConnection.packed`): pika hands each frame to
  TLS as a record of its own, three a message, which costs both ends a quarter of the throughput.
* Properties that cannot be decoded become empty ones. In pika they are an exception that costs the connection, and
  as the broker delivers the message again, one hostile sender could keep a consumer reconnecting.

Should a later pika rename what is overridden here, both fall back to pika's own behaviour; tests would show it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pika
from pika import spec

# Four TLS records. pika copies the rest of a partly written buffer, so a larger one would cost more than it saves.
PACK = 64 * 1024


class PackedConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types
    """A connection that can hold frames back and write them together."""

    _held: list[bytes] | None = None

    @contextmanager
    def packed(self) -> Iterator[None]:
        """Frames of this block leave at its end."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held and not self.is_closed:
                self._write(held)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        if self._held is None:
            self._write(marshaled_frames)
        else:
            self._held.extend(marshaled_frames)

    def _write(self, frames: Sequence[bytes]) -> None:
        pack: list[bytes] = []
        size = 0
        for frame in frames:
            if size and size + len(frame) > PACK:
                super()._output_marshaled_frames([b"".join(pack)])
                pack, size = [], 0
            pack.append(frame)
            size += len(frame)
        if pack:
            super()._output_marshaled_frames([b"".join(pack)])


class TolerantProperties(spec.BasicProperties):  # type: ignore[misc]  # pika has no types
    """Message properties that are empty if what came in cannot be decoded."""

    def decode(self, encoded: bytes, offset: int = 0) -> TolerantProperties:
        """Decodes, or leaves everything unset."""
        try:
            super().decode(encoded, offset)
            sound = not self.headers or all(type(key) is str for key in self.headers)
        except Exception:  # noqa: BLE001 - whatever a hostile table provokes, even RecursionError
            sound = False
        if not sound:
            self.__init__()  # type: ignore[misc]  # back to a fresh object, in place
        return self


def teach() -> None:
    """Makes pika decode with :class:`TolerantProperties`, and keeps it from logging what we report ourselves."""
    spec.props[spec.Basic.INDEX] = TolerantProperties
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:  # somebody who looks for a fault in pika may set it
        logger.setLevel(logging.CRITICAL)  # else five errors with stack traces for every refused connect
