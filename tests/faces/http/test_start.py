"""The server starts without what only some requests need."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import httpx

from afresh.faces.http.app import ServeSettings, make_app, server_of

HEAVY = ("sklearn", "matplotlib", "pyarrow", "scipy")
CODE = f"""
import sys
from pathlib import Path
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.app import server_of
server_of(ServeSettings([Path()], memory=2**20))
print([m for m in {HEAVY} if m in sys.modules])
"""


def test_nothing_heavy_but_torch_is_imported_before_it_answers(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


def test_requests_that_come_at_once_find_a_dialect_that_one_of_them_adds(tmp_path: Path) -> None:
    app = make_app(ServeSettings([tmp_path], memory=2**20))

    async def answers() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await asyncio.gather(*(client.get(path) for path in ("/v1/models", "/v1/nothing") * 4))

    assert [a.status_code for a in asyncio.run(answers())] == [200, 404] * 4


def test_log_handlers_of_the_process_stay_open(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    server_of(ServeSettings([tmp_path], memory=2**20))
    assert handler.stream is not None, "uvicorn's own configuration of logging closes every handler"
    handler.close()
