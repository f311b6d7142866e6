"""Odd files, each made by a small function: damaged, lying about themselves, or small and without end.

`CASES` holds them by name. `Case.make(folder)` writes one into a folder; `Case.kind` says beside what it lies, and
`GOOD` what a good file of that kind is called and holds. What reads folders refuses each with a reason, reads the good
file beside it, and takes neither long nor much memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

MB = 1 << 20
Content = Callable[[], bytes]


@dataclass(frozen=True)
class Case:
    """An odd file: what it lies beside (a key of GOOD), its name, how it is made, and whether a part of it is refused;
    some are only strange, and what matters is that reading them ends."""

    kind: str
    file: str
    content: Content
    refused: bool = True
    place: Callable[[Path, bytes], None] | None = None

    def make(self, folder: Path) -> None:
        if self.place is not None:
            self.place(folder / self.file, self.content())
        else:
            (folder / self.file).write_bytes(self.content())


# --------------------------------------------------------------------------- good files


def png(side: int = 8, value: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def wav(seconds: float = 0.5) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(int(8000 * seconds)) / 5) * 9000).astype("<i2").tobytes())
    return out.getvalue()


def midi(track: bytes = b"", division: int = 480, tracks: int = 1, declared: int | None = None) -> bytes:
    notes = b"".join(b"\x00\x90" + bytes([60 + i, 90]) + b"\x83\x60\x80" + bytes([60 + i, 0]) for i in range(8))
    body = (track or notes) + b"\x00\xff\x2f\x00"
    size = len(body) if declared is None else declared
    return b"MThd" + struct.pack(">IHHH", 6, 1, tracks, division & 0xFFFF) + b"MTrk" + struct.pack(">I", size) + body


def tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def parquet(columns: Mapping[str, object], **options: object) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(dict(columns)), out, **options)
    return out.getvalue()


def arrow(columns: Mapping[str, object], compression: str | None = None, *, stream: bool = False) -> bytes:
    out, table = io.BytesIO(), pa.table(dict(columns))
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return out.getvalue()


def archive(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


GOOD: dict[str, tuple[str, Content]] = {
    "text": ("good.txt", lambda: b"Once upon a time there was a good file.\n" * 3),
    "chat": (
        "good.jsonl",
        lambda: json.dumps({"messages": [{"role": r, "content": r} for r in ("user", "assistant")]}).encode() + b"\n",
    ),
    "image": ("good.png", png),
    "audio": ("good.wav", wav),
    "music": ("good.mid", midi),
    "molecule": ("good.smi", lambda: b"CCO ethanol\nc1ccccc1 benzene\n"),
    "arrow": ("good.arrow", lambda: arrow({"text": ["a good text", "another good text"]})),
    "webdataset": ("good.tar", lambda: tar({"1.png": png(), "1.txt": b"one", "2.png": png(8, 1), "2.txt": b"two"})),
}
CASES: dict[str, Case] = {}


def odd(kind: str, file: str, fault: str, content: Content, *, refused: bool = True, place: object = None) -> None:
    name = f"{kind} .{file.rpartition('.')[2]}: {fault}"
    assert name not in CASES, name
    stem = f"odd{len(CASES)}"
    CASES[name] = Case(kind, file.replace("odd", stem), content, refused, place)  # type: ignore[arg-type]


def each(kind: str, file: str, faults: Mapping[str, Content], *, refused: bool = True) -> None:
    for fault, content in faults.items():
        odd(kind, file, fault, content, refused=refused)


# --------------------------------------------------------------------------- texts

each(
    "text",
    "odd.txt",
    {
        "white space": lambda: b" \n\t\n",
        "zero bytes": lambda: b"abc\0def" * 100,
        "half a character of UTF-16": lambda: "text".encode("utf-16")[:-1],
        "damaged UTF-8": lambda: ("ä" * 100).encode() + b"\xff" + ("ö" * 100).encode(),
        "larger than the limit": lambda: b"x" * (4 * MB + 1),
    },
)
each(
    "text",
    "odd.md",
    {"a line of 3 MB": lambda: b"y" * 3 * MB, "a mark alone": lambda: b"\xef\xbb\xbf x"},
    refused=False,
)
each(
    "text",
    "odd.txt.gz",
    {
        "cut off": lambda: gzip.compress(b"text" * 1000)[:-12],
        "no gzip": lambda: b"text that is not packed",
        "bomb": lambda: gzip.compress(bytes(40 * MB)),
        "wrong sum": lambda: gzip.compress(b"text" * 1000)[:-8] + bytes(8),
        "header alone": lambda: gzip.compress(b"")[:10],
        "an endless name": lambda: b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"n" * MB,
    },
)
DEEP = 50_000
each(
    "text",
    "odd.html",
    {
        "elements within elements": lambda: b"<div>" * DEEP + b"text",
        "40,000 attributes": lambda: b"<p " + b" ".join(b"a%d=1" % i for i in range(40_000)) + b">text</p>",
        "equal attributes": lambda: b"<p " + b"a=1 " * 40_000 + b">text</p>",
        "open tags": lambda: b"text" + b"<a " * DEEP,
        "open comments": lambda: b"text" + b"<!--" * DEEP,
        "open declarations": lambda: b"text" + b"<!" * DEEP,
        "open sections": lambda: b"text" + b"<![CDATA[" * DEEP,
        "open instructions": lambda: b"text" + b"<?" * DEEP,
        "end tags": lambda: b"text" + b"</" * DEEP,
        "ampersands": lambda: b"text" + b"&" * DEEP + b"#" * DEEP,
        "a large character": lambda: b"text &#x110000; &#99999999999999999999;" + b"&#" + b"9" * 100_000 + b";",
        "hidden in hidden": lambda: b"text" + b"<svg>" * DEEP + b"</svg>" * DEEP,
        "open quotes": lambda: b"text" + b"<a b='" * DEEP,
    },
    refused=False,
)
odd("text", "odd.html", "nothing visible", lambda: b"<html><head><title>x</title></head><script>y</script></html>")
each(
    "text",
    "odd.eml",
    {
        "300 brackets in From": lambda: b"From: " + b"(" * 3000 + b"\nSubject: x\n\ntext\n",
        "quotes in From": lambda: b"From: " + b'"' * 8000 + b"\nSubject: x\n\ntext\n",
        "parts within parts": lambda: b"".join(
            b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (i, i) for i in range(5_000)
        ),
        "the year 99999": lambda: b"Date: Mon, 1 Jan 99999 00:00:00 +0000\nSubject: x\n\ntext\n",
        "an unknown encoding": lambda: b"Content-Type: text/plain; charset=no-such\n\ntext\n",
        "a zone of 9999 hours": lambda: b"Date: Mon, 1 Jan 2024 00:00:00 +999999\n\ntext\n",
        "encoded words": lambda: b"Subject: " + b"=?utf-8?q?" * 5_000 + b"\n\ntext\n",
        "addresses within groups": lambda: b"To: " + b"a:" * 5_000 + b"\nFrom: " + b"<" * 5_000 + b"\n\ntext\n",
        "parameters": lambda: b"Content-Type: text/plain" + b"; a*0*=''%41" * 1_000 + b"\n\ntext\n",
    },
    refused=False,
)
odd("text", "odd.eml", "no text", lambda: b"Content-Type: image/png\n\n")
odd("text", "odd.eml", "only headers", lambda: b"Subject: x\n")
odd("text", "odd.mbox", "no mailbox", lambda: b"Subject: x\n\ntext\n")
odd(
    "text",
    "odd.mbox",
    "one bad message of three",
    lambda: b"From a\nSubject: x\n\ngood text\n\nFrom b\nContent-Type: image/png\n\n\n\nFrom c\nSubject: x\n\ntext\n",
)


def document(body: str) -> bytes:
    """An OpenDocument text."""
    space = "urn:oasis:names:tc:opendocument:xmlns"
    names = f'xmlns:office="{space}:office:1.0" xmlns:text="{space}:text:1.0"'
    return archive(
        {"content.xml": f"<office:document {names}><office:body>{body}</office:body></office:document>".encode()}
    )


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><l>&j;</l>"
)
for suffix in ("docx", "odt", "epub"):
    each(
        "text",
        f"odd.{suffix}",
        {
            "no archive": lambda: b"PK\x03\x04 not an archive",
            "no parts": lambda: archive({"other.txt": b"x"}),
            "entities": lambda: archive(
                dict.fromkeys(("content.xml", "META-INF/container.xml", "[Content_Types].xml"), LAUGHS.encode())
            ),
            "bomb": lambda: archive({"content.xml": bytes(3 * MB), "META-INF/container.xml": bytes(3 * MB)}),
            "damaged": lambda: archive({"content.xml": b"<a>" * 1000})[:-30],
        },
    )
odd("text", "odd.odt", "lists within lists", lambda: document("<text:list>" * 20_000 + "</text:list>" * 20_000))
odd(
    "text",
    "odd.odt",
    "many spaces",
    lambda: document('<text:p>x<text:s text:c="99999999999"/></text:p>'),
    refused=False,
)
odd("text", "odd.odt", "a count in letters", lambda: document('<text:p>x<text:s text:c="many"/></text:p>'))
odd(
    "text",
    "odd.epub",
    "a chapter named a thousand times",
    lambda: archive(
        {
            "META-INF/container.xml": b'<c xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            b'<rootfile full-path="p"/></c>',
            "p": b'<p xmlns="http://www.idpf.org/2007/opf"><item id="i" href="c"/>'
            + b'<itemref idref="i"/>' * 20_000
            + b"</p>",
            "c": b"<p>" + b"text " * 20_000 + b"</p>",
        }
    ),
    refused=False,
)


def pdf(pages: str, stream: bytes = b"BT (text) Tj ET", extra: bytes = b"") -> bytes:
    packed = zlib.compress(stream)
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj" + pages.encode() + b"endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<<>>>>endobj\n"
        b"4 0 obj<</Filter/FlateDecode/Length %d>>stream\n"
        % len(packed)
        + packed
        + b"\nendstream endobj\n"
        + extra
        + b"trailer<</Root 1 0 R>>\n"
    )


each(
    "text",
    "odd.pdf",
    {
        "no PDF": lambda: b"%PDF-1.4\n" + b"garbage " * 100,
        "pages that hold themselves": lambda: pdf("<</Type/Pages/Count 1/Kids[2 0 R]>>"),
        "a page a thousand times": lambda: pdf(
            f"<</Type/Pages/Count 9/Kids[{'3 0 R ' * 5000}]>>", b"BT " + b"q Q " * 20_000
        ),
        "a billion pages": lambda: pdf("<</Type/Pages/Count 999999999/Kids[]>>"),
        "a bomb": lambda: pdf("<</Type/Pages/Count 1/Kids[3 0 R]>>", bytes(100 * MB)),
        "arrays within arrays": lambda: pdf("<</Type/Pages/Count 1/Kids" + "[" * 50_000 + "]>>"),
        "cut off": lambda: pdf("<</Type/Pages/Count 1/Kids[3 0 R]>>")[:60],
        "long numbers": lambda: pdf(f"<</Type/Pages/Count {'9' * 100_000}/Kids[3 0 R]>>"),
    },
)

# --------------------------------------------------------------------------- tables

each(
    "text",
    "odd.csv",
    {
        "an open quote": lambda: b'text,n\n"never closed,1\n',
        "equal names": lambda: b"text,text\na,b\n",
        "too many columns": lambda: b",".join(b"c%d" % i for i in range(10_001)) + b"\n1\n",
        "no header": lambda: b"\n\n",
        "fewer fields": lambda: b"text,n\n" + b"alone\n" * 3,
        "zeros": lambda: b"text\0,n\na,1\n",
    },
)
odd("text", "odd.csv", "a field of 3 MB", lambda: b"text,n\n" + b"x" * 3 * MB + b",1\n", refused=False)
odd("text", "odd.tsv", "quotes", lambda: b'text\tn\n"' + b'""' * 100_000 + b"\t1\n", refused=False)
each(
    "text",
    "odd.json",
    {
        "lists within lists": lambda: b"[" * 200_000,
        "objects within objects": lambda: b'{"a":' * 100_000,
        "a number of 100,000 digits": lambda: b'[{"text": ' + b"9" * 100_000 + b"}]",
        "a number": lambda: b"17",
        "no JSON": lambda: b"{text}",
        "lists": lambda: b"[[1], [2]]",
        "cut off": lambda: b'[{"text": "a',
        "half a character": lambda: b'[{"text": "\\ud800 alone"}]',
        "an endless exponent": lambda: b'[{"text": 1e999999}]',
        "values by the million": lambda: b"[" + b"{}," * 1_000_000 + b"{}]",
    },
)
each(
    "text",
    "odd.jsonl",
    {
        "one line of lists": lambda: b'{"text": "good"}\n' + b"[" * 100_000 + b"\n",
        "a long number": lambda: b'{"text": "good"}\n{"text": ' + b"9" * 5_000 + b"}\n",
        "a row that is none": lambda: b'{"text": "good"}\n7\n',
        "a text that is a number": lambda: b'{"text": "good"}\n{"text": 7}\n',
        "half a character": lambda: b'{"text": "good"}\n{"text": "\\udfff"}\n',
        "names by the thousand": lambda: json.dumps({f"c{i}": "x" for i in range(10_001)}).encode(),
    },
)
each(
    "chat",
    "odd.jsonl",
    {
        "messages that are a number": lambda: b'{"messages": 7}\n',
        "messages that are nothing": lambda: b'{"messages": null}\n{"messages": []}\n',
        "messages that are texts": lambda: b'{"messages": ["a", "b"]}\n',
        "an unknown role": lambda: b'{"messages": [{"role": "king", "content": "a"}]}\n',
        "a role that is a list": lambda: b'{"messages": [{"role": [[]], "content": "a"}]}\n',
        "no content": lambda: b'{"messages": [{"role": "user"}]}\n',
        "content in parts of parts": lambda: b'{"messages": [{"role": "user", "content": [[[]]]}]}\n',
        "messages as deep text": lambda: json.dumps({"messages": "[" * 100_000}).encode(),
        "messages as a long number": lambda: json.dumps({"messages": "9" * 100_000}).encode(),
        "half a character in content": lambda: b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n',
    },
)


def same(count: int, value: object) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def in_one_row(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def nested(levels: int) -> pa.Array:
    column = pa.array([1])
    for _ in range(levels):
        column = pa.StructArray.from_arrays([column], ["a"])
    return column


def patched(raw: bytes, find: bytes, put: bytes) -> bytes:
    assert find in raw
    return raw.replace(find, put)


each(
    "text",
    "odd.parquet",
    {
        "marks alone": lambda: b"PAR1PAR1",
        "cut off": lambda: parquet({"text": ["a"] * 100})[:-20],
        "an end of 4 GB": lambda: parquet({"text": ["a"]})[:-8] + b"\xff\xff\xff\xffPAR1",
        "an empty end": lambda: b"PAR1" + bytes(20) + b"\x10\0\0\0PAR1",
        "garbage": lambda: b"PAR1" + np.random.default_rng(0).bytes(5000) + struct.pack("<I", 4000) + b"PAR1",
        "equal rows": lambda: parquet({"text": same(6_000_000, "a")}),
        "equal long texts": lambda: parquet({"text": same(10_000, "x" * 100_000)}),
        "a list in one row": lambda: parquet({"messages": in_one_row(same(2_000_000, "u" * 1000))}),
        "columns within columns": lambda: parquet({"a": nested(70), "text": ["a"]}),
        "too many columns": lambda: parquet({f"c{i}": [1] for i in range(10_001)}),
        "a page of zeros": lambda: parquet({"text": ["\0" * 20 * MB]}, compression="zstd", use_dictionary=False),
        "no rows": lambda: parquet({"text": pa.array([], pa.string())}),
        "no texts": lambda: parquet({"picture": [b"\xff\xd8\xff"] * 3}),
    },
)
each(
    "text",
    "odd.parquet",
    {
        "shared beginnings": lambda: parquet(
            {"text": ["y" * 3000 + str(i) for i in range(1000)]},
            use_dictionary=False,
            column_encoding={"text": "DELTA_BYTE_ARRAY"},
        ),
        "a group a row": lambda: parquet({"text": ["a"] * 1000}, row_group_size=1),
        "texts that are not UTF-8": lambda: patched(
            parquet({"text": ["aaaa"]}, compression="none"), b"aaaa", b"\xff" * 4
        ),
    },
    refused=False,
)
each(
    "arrow",
    "odd.arrow",
    {
        "garbage": lambda: b"not an arrow file" * 10,
        "cut off": lambda: arrow({"text": ["a"] * 100})[:-30],
        "mark alone": lambda: b"ARROW1\0\0",
        "a message of 2 GB": lambda: b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(64),
        "packed": lambda: arrow({"text": ["\0" * 40 * MB]}, "zstd"),
        "rows without content": lambda: arrow({"text": pa.nulls(1 << 30)}, stream=True),
        "equal texts": lambda: arrow({"text": same(50_000, "x" * 100_000)}, "zstd"),
        "equal lists": lambda: arrow({"text": same(10_000, ["x"] * 1000)}),
        "a row without end": lambda: arrow({"text": pa.FixedSizeListArray.from_arrays(pa.nulls(1 << 30), 1 << 30)}),
        "runs": lambda: arrow({"text": pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30]), pa.array(["x"]))}),
        "a union": lambda: arrow(
            {"text": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array(["x"])])}
        ),
    },
)

# --------------------------------------------------------------------------- archives of .tar


def header(size: int, kind: bytes = tarfile.REGTYPE, name: str = "3.png") -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")
    raw[148:156] = b"%06o\0 " % tarfile.calc_chksums(raw)[0]
    return bytes(raw)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header(len(records), kind) + records + bytes(-len(records) % 512)


each(
    "webdataset",
    "odd.tar",
    {
        "a size of 2^62": lambda: header(1 << 62) + b"12345",
        "2^62 in pax": lambda: pax(b"28 size=4611686018427387904\n") + header(1),
        "a negative size": lambda: header(-1024),
        "a negative size in pax": lambda: pax(b"14 size=-1536\n") + header(1),
        "a pax header of 2^62": lambda: header(1 << 62, tarfile.XHDTYPE),
        "a pax header of digits": lambda: pax(b"1" * MB),
        "a name of 1 GB": lambda: header(1 << 30, tarfile.GNUTYPE_LONGNAME),
        "pax headers without end": lambda: pax(b"6 a=b\n") * 3000,
        "long names without end": lambda: (header(5, tarfile.GNUTYPE_LONGNAME) + b"name".ljust(512, b"\0")) * 3000,
        "sparse digits": lambda: pax(b"25 GNU.sparse.size=%s\n" % (b"9" * 5000)) + header(1),
        "no archive": lambda: b"not an archive" * 100,
        "cut off": lambda: tar({"3.png": png()})[:600],
    },
)
odd(
    "webdataset",
    "odd.tar",
    "a long number",
    lambda: pax(b"5020 size=" + b"9" * 5009 + b"\n") + header(1),
    refused=False,
)

# --------------------------------------------------------------------------- images


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def pixels(width: int, height: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes((width + 1) * height)))


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """Entries (tag, type, count, value) of one directory."""
    body = b"".join(struct.pack("<HHII", *e) for e in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


SIDES = ((256, 4, 1, 8), (257, 4, 1, 8))
each(
    "image",
    "odd.png",
    {
        "cut off": lambda: png()[:100],
        "text": lambda: b"not a picture",
        "2^31 pixels wide": lambda: png_of(2**31 - 1, 1, pixels(8, 1)),
        "30,000 pixels square": lambda: png_of(30_000, 30_000, pixels(8, 8)),
        "no pixels wide": lambda: png_of(0, 0),
        "packed texts": lambda: png_of(
            8, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(MB)))] * 100, pixels(8, 8)
        ),
        "a packed profile": lambda: png_of(
            8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20 * MB))), chunk(b"IDAT", b"")
        ),
        "a chunk of 2 GB": lambda: png_of(8, 8)[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(100),
        "an impossible depth": lambda: png_of(8, 8, pixels(8, 8), depth=77),
        "no image data": lambda: png_of(8, 8),
        "damaged data": lambda: png_of(8, 8, chunk(b"IDAT", b"\xff" * 50)),
    },
)
each(
    "image",
    "odd.png",
    {
        "data for more pixels": lambda: png_of(8, 8, chunk(b"IDAT", zlib.compress(bytes(50 * MB)))),
        "chunks by the thousand": lambda: png_of(8, 8, *[chunk(b"tEXt", b"a\0b")] * 50_000, pixels(8, 8)),
        "frames by the million": lambda: png_of(
            8, 8, chunk(b"acTL", struct.pack(">II", 2**30, 0)), chunk(b"fcTL", bytes(26)), pixels(8, 8)
        ),
    },
    refused=False,
)
each(
    "image",
    "odd.tif",
    {
        "a directory after itself": lambda: tiff(*SIDES, following=8),
        "a million pixels square": lambda: tiff((256, 4, 1, 10**6), (257, 4, 1, 10**6)),
        "strips by the billion": lambda: tiff(*SIDES, (273, 4, 2**31, 8), (279, 4, 2**31, 8), (278, 4, 1, 1)),
        "tiles of no size": lambda: tiff(*SIDES, (322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 8), (325, 4, 1, 8)),
        "no entries": lambda: tiff(),
        "samples by the thousand": lambda: tiff(*SIDES, (277, 3, 1, 60_000), (258, 3, 1, 8)),
        "strips beyond the end": lambda: tiff(
            *SIDES, (273, 4, 1, 2**31), (279, 4, 1, 2**31), (258, 3, 1, 8), (262, 3, 1, 1)
        ),
        "65,535 entries": lambda: b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 270, 2, 2**30, 0) * 1000,
    },
)
each(
    "image",
    "odd.gif",
    {
        "65,535 pixels square": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        "cut off": lambda: b"GIF89a\x08\0\x08\0\0\0\0,\0\0",
        "comments alone": lambda: b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\x01a\0" * 100_000,
    },
)
odd(
    "image",
    "odd.gif",
    "frames by the thousand",
    lambda: b"GIF89a\x08\0\x08\0\x80\0\0" + bytes(6) + b",\0\0\0\0\x08\0\x08\0\0\x02\x02\x8c\x0a\0" * 20_000 + b";",
    refused=False,
)
each(
    "image",
    "odd.bmp",
    {
        "2^31 pixels wide": lambda: (
            b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
        "cut off": lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 64, 64, 1, 24, 0, 0, 0, 0, 0, 0),
        "runs without end": lambda: (
            b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 64, 64, 1, 8, 1, 0, 0, 0, 0, 0) + b"\0\2\xff\xff" * 9
        ),
    },
)
each(
    "image",
    "odd.jpg",
    {
        "cut off": lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
        "65,535 pixels square": lambda: (
            b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\1\x11\0\2\x11\1\3\x11\1\xff\xd9"
        ),
        "marks without end": lambda: b"\xff\xd8" + b"\xff" * MB,
        "segments of no length": lambda: b"\xff\xd8" + b"\xff\xe1\0\0" * 1000,
    },
)
each(
    "image", "odd.webp", {"cut off": lambda: b"RIFF\xff\xff\xff\x7fWEBPVP8 ", "no frames": lambda: b"RIFF\4\0\0\0WEBP"}
)

# --------------------------------------------------------------------------- sounds


def riff(fmt: bytes, data: bytes = bytes(1000), size: int | None = None) -> bytes:
    body = (
        b"WAVEfmt "
        + struct.pack("<I", len(fmt))
        + fmt
        + b"data"
        + struct.pack("<I", len(data) if size is None else size)
    )
    return b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data


def form(kind: int = 1, channels: int = 1, rate: int = 8000, each: int = 2, bits: int = 16) -> bytes:
    return struct.pack("<HHIIHH", kind, channels, rate, (rate * each) & 0xFFFFFFFF, each, bits)


each(
    "audio",
    "odd.wav",
    {
        "text": lambda: b"not a sound" * 100,
        "no channels": lambda: riff(form(channels=0)),
        "65,535 channels": lambda: riff(form(channels=65_535)),
        "no rate": lambda: riff(form(rate=0)),
        "a rate of 2^32": lambda: riff(form(rate=2**32 - 1)),
        "no bits": lambda: riff(form(bits=0, each=0)),
        "an unknown coding": lambda: riff(form(kind=0x7777)),
        "no samples": lambda: riff(form(), b""),
        "numbers that are none": lambda: riff(form(3, each=4, bits=32), np.full(500, np.nan, "<f4").tobytes()),
        "chunks within itself": lambda: b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\xff\xff\xff\x7f" * 1000,
    },
)
each(
    "audio",
    "odd.wav",
    {
        "4 GB declared": lambda: riff(form(), size=2**32 - 2),
        "chunks by the thousand": lambda: b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 50_000 + riff(form())[12:],
    },
    refused=False,
)
FLAC = b"fLaC\x80\0\0\x22" + struct.pack(">HH", 4096, 4096) + bytes(6)
each(
    "audio",
    "odd.flac",
    {
        "2^36 samples": lambda: FLAC + ((8000 << 44) | (15 << 36) | (2**36 - 1)).to_bytes(8, "big") + bytes(16),
        "header alone": lambda: FLAC,
        "pictures without end": lambda: b"fLaC" + b"\6\xff\xff\xff" * 1000,
    },
)
each(
    "audio",
    "odd.ogg",
    {"pages alone": lambda: b"OggS\0\2" + bytes(21) + b"\xff" * 256, "garbage": lambda: b"OggS" * 5000},
)
each(
    "audio",
    "odd.mp3",
    {"a tag of 256 MB": lambda: b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(1000), "garbage": lambda: b"\xff\xfb" * 9},
)
each(
    "audio",
    "odd.aiff",
    {
        "negative frames": lambda: (
            b"FORM\0\0\0\x2eAIFFCOMM\0\0\0\x12\0\1\xff\xff\xff\xff\0\x10" + bytes(10) + b"SSND" + bytes(12)
        ),
        "an infinite rate": lambda: (
            b"FORM\0\0\0\x2eAIFFCOMM\0\0\0\x12\0\1\0\0\0\1\0\x10\x7f\xff" + b"\xff" * 8 + b"SSND" + bytes(12)
        ),
    },
)

# --------------------------------------------------------------------------- music

each(
    "music",
    "odd.mid",
    {
        "text": lambda: b"not music",
        "a track of 4 GB": lambda: midi(declared=2**32 - 1),
        "frames of film": lambda: midi(division=-25 * 256 + 40),
        "no division": lambda: midi(division=0),
        "a note years later": lambda: midi(b"\xff\xff\xff\x7f\x90\x3c\x5a" * 6 + b"\x01\x80\x3c\0"),
        "no notes": lambda: midi(b"\0\xff\x01\x01a"),
        "a meter of 255": lambda: midi(b"\0\xff\x58\4\xff\xff\1\1\0\x90\x3c\x5a\x60\x80\x3c\0"),
        "cut off": lambda: midi()[:20],
        "no status": lambda: midi(b"\0\x3c\x5a\0\x3c\0"),
    },
)
each(
    "music",
    "odd.mid",
    {
        "65,535 tracks": lambda: midi(tracks=65_535),
        "meters by the thousand": lambda: midi(
            b"".join(b"\x83\x60\xff\x58\4" + bytes([3 + i % 2, 2, 24, 8]) for i in range(5_000))
            + b"\0\x90\x3c\x5a\x60\x80\x3c\0"
        ),
        "notes that never end": lambda: midi(b"\0\x90\x3c\x5a" * 20_000),
    },
    refused=False,
)
each(
    "music",
    "odd.json",
    {
        "lists within lists": lambda: b"[[[[" + b"[" * 100_000,
        "long numbers": lambda: b"[[[" + b"9" * 10_000 + b"]]]",
        "pitches out of range": lambda: b"[[[60, 999]]]",
        "voices that differ": lambda: b"[[[60], [60, 62]]]",
        "fractions": lambda: b"[[[60.5]]]",
    },
)
TUNE = b"X:1\nT:t\nM:4/4\nL:1/8\nK:C\n"
each("music", "odd.abc", {"no tune": lambda: b"words\n" * 10, "binary": lambda: TUNE + b"\0\xff" * 100})
each(
    "music",
    "odd.abc",
    {
        "repeats within repeats": lambda: TUNE + b"|:" * 2000 + b"CDEF" + b":|" * 2000 + b"\n",
        "a length of nothing": lambda: b"X:1\nT:t\nM:4/4\nL:1/0\nK:C\nCDEF|\n",
        "a meter of nothing": lambda: b"X:1\nT:t\nM:0/0\nL:1/8\nK:C\nCDEF|\n",
        "a long note": lambda: TUNE + b"C999999999999999|\n",
        "a large chord": lambda: TUNE + b"[" + b"CEG" * 5000 + b"]|\n",
        "a long line": lambda: TUNE + b"CDEF|" * 50_000 + b"\n",
    },
    refused=False,
)

# --------------------------------------------------------------------------- molecules

each(
    "molecule",
    "odd.smi",
    {
        "99,999,999 hydrogens": lambda: b"[CH99999999]\n",
        "a charge without end": lambda: b"[C+99999999999999999999]\n",
        "an isotope without end": lambda: b"[99999999999999999999C]\n",
        "a ring of a large number": lambda: b"C%(9999999999999)CC%(9999999999999)\n",
        "a map of a large number": lambda: b"[CH3:99999999999999999999]C\n",
        "a million atoms": lambda: b"C" * 1_000_000 + b"\n",
        "branches within branches": lambda: b"C(" * 2000 + b"C" + b")" * 2000 + b"\n",
        "open brackets": lambda: b"[" * 4000 + b"\n",
        "open rings": lambda: b"C1" * 2000 + b"\n",
        "dots": lambda: b"." * 4000 + b"\n",
        "signs": lambda: b"[C" + b"+" * 4000 + b"]\n",
        "an unknown element": lambda: b"[Xx]\n",
        "chirality of a large number": lambda: b"[C@TH99999999999](F)(Cl)(Br)I\n",
        "an atom by its number": lambda: b"[#99999999999]\n",
        "what is not text": lambda: "Cé\u202eC\n".encode(),
        "binary": lambda: b"C\0C\n",
    },
)
each(
    "molecule",
    "odd.sdf",
    {
        "999 atoms declared": lambda: b"\n\n\n999999  0  0  0  0  0  0  0  0999 V2000\nM  END\n$$$$\n",
        "negative counts": lambda: b"\n\n\n -1 -1  0  0  0  0  0  0  0  0999 V2000\nM  END\n$$$$\n",
        "a count of 2^62": lambda: (
            b"\n\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
            b"M  V30 COUNTS 4611686018427387904 0 0 0 0\nM  V30 BEGIN ATOM\nM  END\n$$$$\n"
        ),
        "bonds to nowhere": lambda: (
            b"\n\n\n  1  1  0  0  0  0  0  0  0  0999 V2000\n"
            b"    0.0000    0.0000    0.0000 C   0  0\n  1 77  1  0\nM  END\n$$$$\n"
        ),
        "no structure": lambda: b"words\n$$$$\n" * 3,
        "rings of queries": lambda: (
            b"\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n"
            b"    nan       inf       1e999  Q   0  0\nM  CHG  1   1 999\nM  ISO  1   1 -99\nM  END\n$$$$\n"
        ),
    },
)
odd(
    "molecule",
    "odd.csv",
    "cells that are no molecules",
    lambda: b"smiles,n\n[CH99999999],1\n,2\n" + b"C" * 9000 + b",3\n",
)

# --------------------------------------------------------------------------- the files themselves


def as_pipe(path: Path, content: bytes) -> None:
    os.mkfifo(path)


def as_folder(path: Path, content: bytes) -> None:
    path.mkdir()
    (path / "inside.txt").write_bytes(content)


def as_link(path: Path, content: bytes) -> None:
    path.symlink_to("/dev/zero")


def as_circle(path: Path, content: bytes) -> None:
    path.symlink_to(path)


def far_in_time(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (400_000_000_000, 400_000_000_000))


def bytes_in_name(path: Path, content: bytes) -> None:
    Path(os.fsdecode(os.fsencode(path.parent) + b"/odd\xff\xfe.txt")).write_bytes(content)


def word() -> bytes:
    return b"a text that can be read\n"


for fault, place, refused in (
    ("a pipe", as_pipe, True),
    ("a folder by name", as_folder, False),
    ("a link to an endless device", as_link, True),
    ("a link to itself", as_circle, True),
    ("the year 14645", far_in_time, False),
    ("a name that is not UTF-8", bytes_in_name, False),
):
    odd("text", "odd.txt", fault, word, refused=refused, place=place)
odd("text", "odd.zip", "an archive in a folder", lambda: archive({"a.txt": b"text"}))
odd("text", "odd.bz2", "packed otherwise", lambda: bz2.compress(bytes(MB)))
odd("text", "odd.xz", "packed otherwise", lambda: lzma.compress(bytes(MB)))
