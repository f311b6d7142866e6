"""GET /metrics: what is counted, by route and run, in the text format of Prometheus."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families as families

from afresh.faces.http.app import ServeSettings
from tests.faces.http.conftest import serving


def counts(http: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(answer.text)
        for sample in family.samples
    }


def test_requests_errors_seconds_and_tokens_are_counted(runs: Path) -> None:
    server = serving(ServeSettings([runs], memory=2**30))
    with httpx.Client(base_url=next(server), timeout=60) as http:
        asked = {"model": "stories", "prompt": "Once", "max_tokens": 5}
        used = [http.post("/v1/completions", json=asked).json()["usage"] for _ in range(2)]
        http.post("/v1/completions", json={**asked, "stream": True}).raise_for_status()
        http.post("/v1/completions", json={**asked, "model": "digits"})
        for i in range(5):
            http.get(f"/nothing/{i}")
            http.get(f"/v1/models/none-{i}")
            http.request(f"ODD{i}", "/health")
        found = counts(http)
    next(server, None)
    route = ("route", "/v1/completions")
    assert found["afresh_requests_total", (("method", "POST"), route, ("status", "200"))] == 3
    assert found["afresh_errors_total", (route,)] == 1
    assert found["afresh_request_seconds_count", (route,)] == 4 and found["afresh_request_seconds_sum", (route,)] > 0
    run = ("run", "stories")
    assert found["afresh_run_seconds_count", (run,)] == 3
    assert found["afresh_run_errors_total", (("run", "digits"),)] == 1
    read = sum(u["prompt_tokens"] for u in used) // 2
    assert found["afresh_tokens_total", (("kind", "read"), run)] == 3 * read
    written = found["afresh_tokens_total", (("kind", "written"), run)]
    assert sum(u["completion_tokens"] for u in used) < written <= 15
    assert found["afresh_weights_bytes", (run,)] > 1000 and found["afresh_calls_waiting", (run,)] == 0
    # However many addresses are asked, labels are those of declared routes.
    assert not any(
        "none-" in value or "/nothing" in value or "ODD" in value for _, labels in found for _, value in labels
    )
    assert found["afresh_errors_total", (("route", "/v1/models/{model:path}"),)] == 5
