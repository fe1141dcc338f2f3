"""The schema at /openapi.json, made true where the framework's own differs from what this server answers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from mmsearch.server.problems import MEDIA_TYPE


def add_to(app: FastAPI) -> None:
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _say_problems(made())
        return made()

    app.openapi = openapi  # type: ignore[method-assign]


def _say_problems(schema: dict[str, Any]) -> None:
    """All errors are problems, those of validation too; in place."""
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for status in ("4XX", "5XX"):
                answer = operation["responses"][status]
                answer["description"] = "What went wrong."
                answer["content"] = {MEDIA_TYPE: answer["content"].pop("application/json")}
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
