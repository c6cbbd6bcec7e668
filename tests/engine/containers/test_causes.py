from __future__ import annotations

import pytest

from airflow_model_deploy.engine.containers import says_absent
from airflow_model_deploy.engine.containers.causes import registry_error
from airflow_model_deploy.engine.errors import InputError, UnavailableError


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        ("manifest for a.example/b:1 not found: manifest unknown: manifest unknown", InputError, "Correct"),
        ("name unknown: repository name not known to registry", InputError, "Correct"),
        ('failed to resolve reference "a.example/b:1": a.example/b:1: not found', InputError, "Correct"),
        ("received unexpected HTTP status: 404 Not Found", InputError, "Correct"),
        (
            "pull access denied for b, repository does not exist or may require login",
            InputError,
            "credentials",
        ),
        ("unauthorized: authentication required", InputError, "credentials"),
        ("x509: certificate signed by unknown authority", InputError, "certificate"),
        ("received unexpected HTTP status: 500 Internal Server Error", UnavailableError, "answers"),
        ("unknown: unknown error", UnavailableError, "answers"),
        (
            "unexpected status from PUT request to https://a.example/v2/: 503 Service Unavailable",
            UnavailableError,
            "",
        ),
        (
            "toomanyrequests: You have reached your unauthenticated pull rate limit",
            UnavailableError,
            "answers",
        ),
        ("error parsing HTTP 429 response body: denied: too many requests", UnavailableError, "answers"),
        ("unknown: filesystem: write /var/lib/x: no space left on device", UnavailableError, "Free space"),
        ("dial tcp: lookup a.example: no such host", UnavailableError, "answers"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", UnavailableError, "answers"),
    ],
)
def test_what_an_engine_says_is_taken_for_what_it_is(words: str, kind: type[Exception], remedy: str) -> None:
    error = registry_error("image b can't be pushed", "a.example/b:1", words)
    assert type(error) is kind
    assert remedy in (error.remedy or "")
    assert says_absent(words) is (remedy == "Correct")
