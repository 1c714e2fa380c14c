"""Write logs as one JSON object a line for machines, or as short lines for a terminal."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Formats a log line as a JSON object: time, level, process, logger, message, and an error with it.

    The traceback is part of it only at debug level.
    """

    def __init__(self, process: str, *, tracebacks: bool) -> None:
        super().__init__()
        self._process, self._tracebacks = process, tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = f"{type(error).__name__}: {error}"
            if self._tracebacks:
                line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(process: str, *, level: str = "INFO") -> None:
    """Send every log line of this process to stderr: as JSON, unless a person sits at a terminal.

    Args:
        process: name of this process, in every line.
        level: DEBUG also shows tracebacks.
    """
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter(f"%(asctime)s {process} %(levelname)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonLines(process, tracebacks=level == "DEBUG"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in ("flwr", "uvicorn", "uvicorn.error", "uvicorn.access"):
        # they bring handlers of their own, and every line would come twice
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    for name in ("flwr", "httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def without_stopping(what: str, faults: list[str] | None = None) -> Iterator[None]:
    """Log a failure to make something that only shows a result, and continue: the result itself is never lost to it.

    Args:
        what: is being made, as in `report.html`.
        faults: receives the sentence, for a page that shows it.
    """
    try:
        yield
    except Exception as error:  # whatever it is, what was trained and paid for is worth more
        log = logging.getLogger(__name__)
        fault = f"{what} could not be made ({type(error).__name__}: {error}); the result is complete without it."
        log.error(fault)
        if faults is not None:
            faults.append(fault)
        log.debug("Where it failed:", exc_info=True)
