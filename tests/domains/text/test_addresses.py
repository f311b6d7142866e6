"""Texts at addresses: each is learnt once or held out; files are fetched whole or not at all, and few are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.data import addresses
from afresh.data.load import Loader
from afresh.data.prepare import prepare
from afresh.data.text import spans
from afresh.domains.text import large
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests import needs
from tests.domains.text.test_large import SMALL, STREAM, learnt, texts
from tests.named_settings import named
from tests.s3_server import s3_server

OPTIONS = {k: v for k, v in STREAM.items() if k != "stream"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parts of 4 kB of stretches of 500 bytes, kept for this test alone."""
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "kept"))
    monkeypatch.setattr(spans, "SPAN", 500)
    monkeypatch.setattr(addresses, "WAIT", 0.0)
    for name, size in {"SPAN": 500, "PART": 4000, "SAMPLE": 8000, "HELD_OUT": 800, "FROM_SPAN": 500}.items():
        monkeypatch.setattr(large, name, size)


def shards(count: int = 4, each: int = 150) -> dict[str, bytes]:
    """Files of different texts, the last in Parquet."""
    documents = texts(count * each)
    parts = {f"shard-{n:03d}.jsonl": documents[n * each : n * each + each] for n in range(count)}
    out = {name: "".join(json.dumps({"text": t}) + "\n" for t in part).encode() for name, part in parts.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": documents[-each:]}), sink, row_group_size=20)
    del out[f"shard-{count - 1:03d}.jsonl"]
    return out | {f"shard-{count - 1:03d}.parquet": sink.getvalue().to_pybytes()}


@dataclass
class Web:
    """A server of files on this machine. status: of answers for a name. halves: names of which half is sent."""

    files: dict[str, bytes]
    address: str = ""
    status: dict[str, int] = field(default_factory=dict)
    halves: set[str] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    needs.package("aiohttp", "afresh[store]")
    given = Web(shards())

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, whole: bool) -> None:
            name = self.path.lstrip("/")
            content = given.files.get(name)
            status = given.status.get(name, 200 if content is not None else 404)
            body = content or b"" if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hash(body)}"')
            self.end_headers()
            if whole:
                given.sent.append(name)
                self.wfile.write(body[: len(body) // 2] if name in given.halves else body)
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    given.address = f"http://127.0.0.1:{server.server_port}"
    yield given
    server.shutdown()
    server.server_close()


def in_memory(files: Mapping[str, bytes]) -> Path:
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name, content in files.items():
        store.pipe_file(f"/bucket/texts/{name}", content)
    return Path("memory://bucket/texts")


def kept(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("[0-9]*-*"))


def test_every_text_at_numbered_addresses_is_learnt_once_or_held_out(tmp_path: Path, web: Web) -> None:
    files = {n: c for n, c in web.files.items() if n.endswith(".jsonl")}
    prepared = prepare(Path(f"{web.address}/shard-{{000..002}}.jsonl"), options=OPTIONS)
    found, held = learnt(prepared), {str(i.value).strip() for i in prepared.heldout_items}
    documents = {json.loads(line)["text"] for content in files.values() for line in content.splitlines()}
    assert prepared.modality == "text" and len(found) == len(set(found)) > 380 and held and not held & set(found)
    assert set(found) | held <= documents and len(documents) - len(found) < 0.15 * len(documents)
    assert sorted(web.sent) == sorted(files), "each file is fetched once"
    assert len(kept(tmp_path / "kept")) <= 2


def test_what_is_lost_is_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    address = in_memory(shards())
    first = prepare(address, options=OPTIONS)
    found = learnt(first)
    parts = {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*.safetensors")}
    for path in sorted(parts)[len(parts) // 2 :]:
        path.unlink()
    for path in (tmp_path / "kept").rglob("[0-9]*-*"):
        path.unlink()
    again = prepare(address, options=OPTIONS)
    assert learnt(again) == found and again.split_hash == first.split_hash
    assert {p: p.read_bytes() for p in parts} == parts


def test_a_run_goes_on_from_an_address_and_one_of_others_asks_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = in_memory(shards())
    job = start(
        TrainSpec(
            address, steps=2, out=tmp_path / "run", data=OPTIONS, settings=named(family=SMALL, train={"threads": 1})
        )
    )
    learn(job)
    run = Run.open(tmp_path / "run")
    assert run.record.data.path == "memory://bucket/texts"
    loaders = [Loader(t, run.training_space, Rng(0)) for t in (job.source.train, run_data(run).train)]
    assert torch.equal(loaders[0].batch(300, 40).x, loaders[1].batch(300, 40).x)
    with monkeypatch.context() as patch:
        patch.setattr("afresh.runs.data.made_here", lambda run: False)
        with pytest.raises(UserError, match=r"its data is at memory://bucket/texts.*trust"):
            run_data(run)
    fsspec.filesystem("memory").pipe_file("/bucket/texts/shard-000.jsonl", b'{"text": "Another text."}\n')
    with pytest.raises(UserError, match="is not what"):
        run_data(run)


def test_a_declared_split_of_files_is_kept() -> None:
    one, other = ([json.dumps({"text": t}) for t in texts(n, seed)] for n, seed in ((100, 0), (20, 1)))
    address = in_memory({"train-00000.jsonl": "\n".join(one).encode(), "val/a.jsonl": "\n".join(other).encode()})
    prepared = prepare(address, options=OPTIONS)
    assert set(learnt(prepared)) == set(texts(100)) and {i.value for i in prepared.heldout_items} <= {*texts(20, 1)}


# --------------------------------------------------------------------------- bad input


def test_a_store_that_refuses_or_has_nothing_is_named(web: Web) -> None:
    with pytest.raises(UserError, match=r"shard-003\.jsonl could not be looked at.*Nothing is there under this name"):
        prepare(Path(f"{web.address}/shard-{{002..004}}.jsonl"), options=OPTIONS)
    web.status["shard-001.jsonl"] = 403
    with pytest.raises(UserError, match=r"shard-001\.jsonl could not be looked at.*The store does not allow it"):
        prepare(Path(f"{web.address}/shard-001.jsonl"), options=OPTIONS)
    fsspec.filesystem("memory").store.clear()
    with pytest.raises(UserError, match="memory://bucket/none"):
        prepare(Path("memory://bucket/none"), options=OPTIONS)
    with pytest.raises(UserError, match=r"of addresses only texts are learnt"):
        prepare(in_memory(shards()), "image")
    with pytest.raises(UserError, match=r"None of the 1 file at the address"):
        prepare(in_memory({"a.png": b"x"}), options=OPTIONS)


def test_half_a_file_is_never_learnt(tmp_path: Path, web: Web) -> None:
    web.halves.add("shard-000.jsonl")
    with pytest.raises(UserError, match=r"shard-000\.jsonl could not be fetched"):
        prepare(Path(f"{web.address}/shard-000.jsonl"), options=OPTIONS)
    assert web.sent == ["shard-000.jsonl"] * addresses.TRIES and not kept(tmp_path / "kept")
    web.halves.clear()
    assert learnt(prepare(Path(f"{web.address}/shard-000.jsonl"), options=OPTIONS))


def test_a_file_that_changes_while_it_is_learnt_ends_training(web: Web) -> None:
    prepared = prepare(Path(f"{web.address}/shard-{{000..002}}.jsonl"), options=OPTIONS)
    for name in {*web.files} - {*web.sent}:
        web.files[name] = web.files[name].swapcase()
    with pytest.raises(UserError, match=r"shard-00\d\.jsonl is not the file that was found there before"):
        learnt(prepared)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_texts_in_a_bucket_of_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as bucket:
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        for name, content in shards().items():
            store.pipe_file(f"{bucket}/texts/{name}", content)
        found = learnt(prepare(Path(f"{bucket}/texts"), options=OPTIONS))
        assert len(found) == len(set(found)) > 500
        with pytest.raises(UserError, match="s3://bucket/none"):
            prepare(Path(f"{bucket}/none"), options=OPTIONS)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        with pytest.raises(UserError, match="No credentials were found"):
            prepare(Path(f"{bucket}/texts"), options=OPTIONS)
