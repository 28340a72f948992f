"""The pilot's log: structlog, JSON lines into files, pretty at a terminal. To standard error; never a secret in it.

The same form as the services' (which a pilot that travels alone cannot import).
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, level: int = logging.INFO) -> None:
    """Set up logging for this process, once, before anything is logged."""
    pretty = sys.stderr.isatty()
    last: list[structlog.typing.Processor] = (
        # The library's own choice shows the values of local variables with each traceback: keys would be among them.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
