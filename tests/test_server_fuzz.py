"""Every endpoint, with what its schema allows and with what it does not: no error of ours, no answer that the schema
does not describe, nothing accepted that it forbids. The same examples in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from mmsearch import Engine
from mmsearch.errors import UsageError
from mmsearch.server import runs
from tests.serving import serving

EXAMPLES = 8  # of each kind, for each endpoint
CHECKS = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def near_what_there_is(case: Any) -> None:
    """Of ids up to 2^63, nearly none is one."""
    for name in ("image", "run"):
        if name in (case.path_parameters or {}):
            case.path_parameters[name] %= 12
    if isinstance(case.body, dict):
        for name in ("image", "ids", "more", "less"):
            value = case.body.get(name)
            if value is not None:
                case.body[name] = [one % 12 for one in value] if isinstance(value, list) else value % 12


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_every_endpoint(engine: Engine, images: Path, mode: GenerationMode, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(url: str, **_: Any) -> bytes:
        raise UsageError(f"{url} cannot be fetched: tests use no network.")

    monkeypatch.setattr("mmsearch.fetching.fetch", nowhere)
    monkeypatch.setattr(runs, "MOST_WAITING", 10**6)
    (images / "red.txt").write_text("a red field")
    engine.index(images)
    engine.add_tags([1], ["field"])
    tried = set()
    with serving(engine) as server, requests.Session() as session:
        session.trust_env = False
        generation = GenerationConfig(modes=[mode], deterministic=True)
        config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=generation)))
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)

        def check(operation: Any) -> None:
            @settings(
                max_examples=EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                if mode is GenerationMode.POSITIVE:
                    near_what_there_is(case)
                answer = case.call(session=session, timeout=30)
                case.validate_response(answer, checks=CHECKS)
                assert b"Traceback" not in answer.content
                tried.add(operation.label)

            one()

        every = [result.ok() for result in schema.get_all_operations()]
        for operation in every:
            if mode is GenerationMode.POSITIVE or operation.body or operation.path_parameters or operation.query:
                check(operation)
        server.state.runs.cancel_all()
    assert len(tried) >= (30 if mode is GenerationMode.POSITIVE else 20)
