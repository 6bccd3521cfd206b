"""`python -m server` with every exchange held against the schemas; violations go into the log."""

from __future__ import annotations

import sys
from typing import Any

import server.process
from server.__main__ import main
from tests.schemas.exchanges import SchemaViolation
from tests.schemas.recording import CheckedApp

VIOLATION = "schema violation: "


def _report(violation: SchemaViolation) -> None:
    print(f"{VIOLATION}{violation}", file=sys.stderr, flush=True)


def checked(create_app: Any) -> Any:
    return lambda *args, **kwargs: CheckedApp(create_app(*args, **kwargs), _report)


if __name__ == "__main__":
    server.process.create_app = checked(server.process.create_app)
    main()
