"""Text: what is read and what is refused, the stream and back, conditions next to each other."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from pydantic import ValidationError

from afresh.core import Corpus, Item, UserError
from afresh.data.split import split
from afresh.data.text.documents import limit_bytes
from afresh.data.text.kind import TEXT
from afresh.domains.text.modality import MODALITY, TextOptions


def put(path: Path, content: str | bytes = "some text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(rows: list[object]) -> str:
    return "\n".join(json.dumps(r) for r in rows)


def read(path: Path, **options: object) -> Corpus:
    return MODALITY.read(path, TextOptions.model_validate(options))


def values(corpus: Corpus) -> list[str]:
    return [i.value for i in corpus.items]


# --------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", ["a.txt.gz", "a.zip"])
def test_packed_texts_that_need_more_memory_than_is_free_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"a b c\n\n" * 10_000
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", text)
    else:
        put(tmp_path / name, gzip.compress(text) if name.endswith(".gz") else text)
    monkeypatch.setattr("afresh.data.text.documents.available_memory", lambda: 350_000.0)
    with pytest.raises(UserError, match=r"and 0.00035 GB are free.*`data.max_bytes=50000`"):
        read(tmp_path / name)
    monkeypatch.setattr("afresh.data.text.documents.available_memory", lambda: 500_000.0)
    assert len(read(tmp_path / name).items) == 1


def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path) -> None:
    texts = ["first, with a comma", 'second "quoted"\nin two lines', "third: é 😀"]
    rows = [{"id": i, "text": t} for i, t in enumerate(texts)]
    put(tmp_path / "a.jsonl", lines(list(rows)))
    put(tmp_path / "a.json", json.dumps(rows))
    put(tmp_path / "b.json", json.dumps({"version": 1, "data": rows}))
    put(tmp_path / "c.json", lines(list(rows)))
    put(tmp_path / "d.json", json.dumps(texts))
    put(tmp_path / "a.jsonl.gz", gzip.compress(lines(list(texts)).encode()))
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, ["id", "text"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for file in sorted(tmp_path.iterdir()):
        corpus = read(file)
        assert values(corpus) == texts, file
        assert corpus.refused == []
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for i, t in enumerate(texts):
            z.writestr(f"{i}.txt", t)
    assert values(read(tmp_path / "a.zip")) == texts


def test_plain_files_are_documents_with_line_ends_kept(tmp_path: Path) -> None:
    put(tmp_path / "b.txt", "one\r\ntwo\n")
    put(tmp_path / "a.md", "# title\n")
    put(tmp_path / "README.md", "about")
    put(tmp_path / "photo.png", b"\x89PNG")
    put(tmp_path / "blank.txt", " \n ")
    put(tmp_path / "damaged.txt", "café, naïve, ".encode() + b"\xe9")
    corpus = read(tmp_path)
    assert values(corpus) == ["# title\n", "one\r\ntwo\n"]
    reasons = {r.source: r.reason for r in corpus.refused}
    assert set(reasons) == {"README.md", "photo.png", "blank.txt", "damaged.txt"}
    assert "byte 15" in reasons["damaged.txt"]
    assert values(read(tmp_path / "README.md")) == ["about"]


def test_lines_and_separators(tmp_path: Path) -> None:
    file = put(tmp_path / "a.txt", "emma\r\n\nolivia\nava")
    assert values(read(file, document="line")) == ["emma", "olivia", "ava"]
    corpus = read(put(tmp_path / "b.txt", "one\nstory\n<|endoftext|>\ntwo <|endoftext|> inside\n<|endoftext|>\n"))
    assert values(corpus) == ["one\nstory\n", "two <|endoftext|> inside\n"]
    assert any("2 documents" in n for n in corpus.notes)


def test_the_lines_of_a_list_are_texts_of_their_own(tmp_path: Path) -> None:
    names = [f"name{i}" for i in range(600)]
    corpus = read(put(tmp_path / "a.txt", "\n".join(names)))
    assert values(corpus) == names and corpus.items[9].source == "a.txt, line 10"
    assert any("600 lines" in n and "`data.document=file`" in n for n in corpus.notes)
    assert corpus.settled["document"] == "line"  # so that a short file for validation is read in the same way
    assert values(read(tmp_path / "a.txt", document="file")) == ["\n".join(names)]
    assert read(put(tmp_path / "b.txt", "\n\n".join(names))).notes == []


def test_lines_that_may_be_a_list_are_noted(tmp_path: Path) -> None:
    verse = "".join(f"Of the first {i},\nand of the second\n" for i in range(200))
    corpus = read(put(tmp_path / "a.txt", verse))
    assert values(corpus) == [verse] and corpus.settled["document"] == "file"
    assert any("`data.document=line`" in n for n in corpus.notes)


def test_encodings_are_guessed_and_said_or_named(tmp_path: Path) -> None:
    text = "Un garçon est allé à l'hôtel, près de la forêt. "
    put(tmp_path / "a.txt", text.encode("cp1252"))
    put(tmp_path / "b.jsonl", json.dumps({"text": text}, ensure_ascii=False).encode("cp1252"))
    put(tmp_path / "c.txt", text.encode())
    corpus = read(tmp_path)
    assert values(corpus) == [text] * 3
    (note,) = (n for n in corpus.notes if "cp1252" in n)
    assert "2 files are not UTF-8" in note and "a.txt, b.jsonl" in note and "`data.encoding=NAME`" in note
    assert values(read(tmp_path / "a.txt", encoding="cp1252")) == [text]
    assert not any("cp1252" in n for n in read(tmp_path / "a.txt", encoding="cp1252").notes)
    with pytest.raises(UserError, match=r"encoding ascii at byte 6.*data\.encoding"):
        read(tmp_path / "a.txt", encoding="ascii")
    with pytest.raises(ValidationError, match="no encoding is named 'klingon'"):
        TextOptions(encoding="klingon")


def test_the_text_column_is_chosen_by_name_or_as_the_only_one_or_set(tmp_path: Path) -> None:
    by_name = read(put(tmp_path / "a.jsonl", lines([{"title": "t", "Body": "words", "n": 1}])))
    assert values(by_name) == ["words"]
    assert any("'Body'" in n and "not used: title, n" in n for n in by_name.notes)
    assert values(read(put(tmp_path / "b.csv", "id,words\n1,hello\n"))) == ["hello"]
    file = put(tmp_path / "c.jsonl", lines([{"front": "q", "back": "a"}]))
    with pytest.raises(UserError, match=r"front, back.*text_column"):
        read(file)
    assert values(read(file, text_column="back")) == ["a"]
    with pytest.raises(UserError, match=r"has no column 'reply'.*front, back"):
        read(file, text_column="reply")
    with pytest.raises(UserError, match="No usable text"):
        read(put(tmp_path / "d.csv", "a,b\n1,2\n"))


def test_invalid_rows_are_reported_and_the_others_read(tmp_path: Path) -> None:
    rows = [
        '{"text": "good"}',
        '{"text": 5}',
        '{"other": "x"}',
        '{"text": "  "}',
        '{"text": "half \\ud83d"}',
        "{broken",
        "[1, 2]",
        "",
        '{"text": "also good"}',
        "[" * 100_000,
    ]
    corpus = read(put(tmp_path / "a.jsonl", "\n".join(rows)), text_column="text")
    assert values(corpus) == ["good", "also good"]
    reasons = {r.source.split("row ")[1]: r.reason for r in corpus.refused}
    assert set(reasons) == {"2", "3", "4", "5", "6", "7", "10"}
    assert "U+D83D" in reasons["5"]
    assert "not JSON" in reasons["6"]


def test_invalid_tables_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "good.txt", "words")
    put(tmp_path / "a.csv", 'text,n\nfine,1\n"never closed,2\n')
    put(tmp_path / "b.csv", "text,text\na,b\n")
    put(tmp_path / "c.json", "{not json}")
    put(tmp_path / "d.parquet", b"PAR1 not really")
    put(tmp_path / "e.jsonl", '{"text": "café, naïve"}'.encode() + b"\xe9")
    put(tmp_path / "f.csv", "text,n\nfine,1\nthree,fields,here\n")
    corpus = read(tmp_path)
    assert values(corpus) == ["fine", "words"]
    assert [r.source for r in corpus.refused] == ["a.csv", "b.csv", "c.json", "d.parquet", "e.jsonl", "f.csv, row 2"]


def test_tab_separated_with_stray_quotes(tmp_path: Path) -> None:
    corpus = read(put(tmp_path / "a.tsv", 'text\tn\n"Hello" she said\t1\n5" pipe\t2\n'))
    assert values(corpus) == ['"Hello" she said', '5" pipe']
    assert any("ordinary characters" in n for n in corpus.notes)


def test_numbers_from_columns(tmp_path: Path) -> None:
    rows = [{"text": "a", "level": 1}, {"text": "b", "level": "2.5"}, {"text": "c", "level": "hard"}, {"text": "d"}]
    corpus = read(put(tmp_path / "a.jsonl", lines(list(rows))), number_columns=("level",))
    assert [dict(i.numbers) for i in corpus.items] == [{"level": 1.0}, {"level": 2.5}, {}, {}]
    assert any("level is not a number in 2 rows" in n for n in corpus.notes)
    assert not any("not used" in n for n in corpus.notes)
    with pytest.raises(UserError, match="has no column 'z'"):
        read(tmp_path / "a.jsonl", number_columns=("z",))


def test_labels_from_a_column_and_from_folders(tmp_path: Path) -> None:
    rows = [{"text": "a", "y": 1}, {"text": "b", "y": "x"}, {"text": "c", "y": None}, {"text": "d", "y": [1]}]
    corpus = read(put(tmp_path / "a.jsonl", lines(list(rows))), label_column="y")
    assert [dict(i.labels) for i in corpus.items] == [{"label": "1"}, {"label": "x"}, {}, {}]
    assert any("2 documents without a label" in n for n in corpus.notes)
    with pytest.raises(UserError, match="has no column 'z'"):
        read(tmp_path / "a.jsonl", label_column="z")
    put(tmp_path / "d" / "pos" / "1.txt", "good")
    put(tmp_path / "d" / "neg" / "1.txt", "bad")
    assert [i.labels["label"] for i in read(tmp_path / "d", folder_labels=True).items] == ["neg", "pos"]
    assert [dict(i.labels) for i in read(tmp_path / "d").items] == [{}, {}]
    with pytest.raises(UserError, match="no document has such a label"):
        read(put(tmp_path / "plain.txt"), folder_labels=True)


def test_files_and_folders_can_define_the_split(tmp_path: Path) -> None:
    put(tmp_path / "stories_train-00000-of-00002.txt", "one")
    put(tmp_path / "stories_train-00001-of-00002.txt", "two")
    put(tmp_path / "valid" / "a.txt", "three")
    put(tmp_path / "training-notes.txt", "four")
    corpus = read(tmp_path)
    assert {i.value: i.split for i in corpus.items} == {
        "one": "train",
        "two": "train",
        "three": "validation",
        "four": None,
    }
    assert [i.split for i in read(tmp_path / "valid").items] == [None]
    alone = put(tmp_path / "other" / "train.txt", "five")
    assert [i.split for i in read(alone).items] == [None]


def test_size_limits(tmp_path: Path) -> None:
    for i in range(50):
        put(tmp_path / "d" / f"{i}.txt", f"{i:02d}" * 50)
    capped = read(tmp_path / "d", max_bytes=1_050)
    assert len(capped.items) == 10
    assert any("40 of 50 documents left out" in n for n in capped.notes)
    assert values(read(tmp_path / "d", max_bytes=2_000))
    assert set(values(capped)) <= set(values(read(tmp_path / "d", max_bytes=2_000)))
    with pytest.raises(UserError, match="smallest document has 100 bytes"):
        read(tmp_path / "d", max_bytes=99)
    with (tmp_path / "huge.txt").open("wb") as f:
        f.truncate(1 << 30)
    with pytest.raises(UserError, match=r"1,024 MB, but at most 512 MB.*max_file_mb"):
        read(tmp_path / "huge.txt")
    assert limit_bytes([], None) == ([], [])


def test_exclude_and_options(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x.txt", "keep")
    put(tmp_path / "b" / "x.txt", "drop")
    corpus = read(tmp_path, exclude=("b",))
    assert values(corpus) == ["keep"]
    assert corpus.refused[0].reason == "excluded by 'b'"
    for wrong in ({"colour": 1}, {"context": 1}, {"tokenizer": "words"}, {"tokenizer": "chars", "vocab_size": 300}):
        with pytest.raises(ValidationError):
            TextOptions.model_validate(wrong)


def test_data_without_usable_text_is_refused_with_the_reasons(tmp_path: Path) -> None:
    put(tmp_path / "a.png", b"x")
    with pytest.raises(UserError, match=r"No usable text(.|\n)*a\.png"):
        read(tmp_path)


def test_sniff(tmp_path: Path) -> None:
    put(tmp_path / "t" / "a.txt")
    put(tmp_path / "t" / "README.md")
    put(tmp_path / "p" / "a.png")
    put(tmp_path / "p" / "README.md")
    put(tmp_path / "c" / "a.py")
    assert MODALITY.sniff(tmp_path / "t").score == 1.0
    assert MODALITY.sniff(tmp_path / "t" / "a.txt").score > 0.9
    assert MODALITY.sniff(tmp_path / "p").score == 0.0
    assert MODALITY.sniff(tmp_path / "c").score == 0.0


# --------------------------------------------------------------------------- the stream


def labelled(n: int = 30) -> list[Item]:
    return [Item(f"document {i} of é\r\n", str(i), {"label": "abc"[i % 3]} if i % 5 else {}) for i in range(n)]


@pytest.mark.parametrize("kind", ["chars", "bytes", "bpe"])
def test_the_stream_contains_every_document_followed_by_end(kind: str) -> None:
    items = [Item(f"text {i} 😀\r\n" * 3) for i in range(20)]
    encoder = MODALITY.fit(items, TextOptions(tokenizer=kind, context=16))  # type: ignore[arg-type]
    x = encoder.encode(items)
    end = encoder.space.special["end"]
    assert x.x.dtype == torch.int32
    assert x.bounds is not None
    assert len(x) == 20
    assert int(x.bounds[-1]) == len(x.x)
    assert x.bytes == sum(len(i.value.encode()) for i in items)
    for d, item in enumerate(items):
        row = x.x[x.bounds[d] : x.bounds[d + 1]]
        assert int(row[-1]) == end
        assert int((row == end).sum()) == 1
        assert encoder.decode(row[None]) == [item.value]
    assert encoder.space.shape == (16,)
    assert encoder.space.stream
    assert encoder.conds == {}


def test_documents_with_equal_conditions_are_adjacent() -> None:
    items = labelled()
    encoder = MODALITY.fit(items, TextOptions())
    x = encoder.encode(items)
    assert x.bounds is not None
    assert encoder.conds["label"].classes == ("a", "b", "c")
    by_text = {i.value: i.labels.get("label") for i in items}
    seen = []
    for d in range(len(x)):
        (text,) = encoder.decode(x.x[x.bounds[d] : x.bounds[d + 1]][None])
        label = "abc"[int(x.cond.parts["label"][d])] if x.cond.present["label"][d] else None
        assert by_text[text] == label
        seen.append(label)
    assert sum(a != b for a, b in zip(seen, seen[1:], strict=False)) == 3  # four stretches: none, a, b, c
    within = [d for d in range(len(x)) if seen[d] == "b"]
    numbers = [int(encoder.decode(x.x[x.bounds[d] : x.bounds[d + 1]][None])[0].split()[1]) for d in within]
    assert numbers == sorted(numbers)  # otherwise the order of the items


def test_held_out_text_with_unknown_characters_is_lossless() -> None:
    encoder = MODALITY.fit([Item("only these letters")], TextOptions(tokenizer="chars"))
    x = encoder.encode([Item("new: Ж 😀")])
    assert encoder.decode(x.x[None]) == ["new: Ж 😀"]


def test_unknown_labels_are_refused() -> None:
    encoder = MODALITY.fit(labelled(), TextOptions())
    with pytest.raises(UserError, match=r"'z' was never seen.*a, b, c"):
        encoder.encode([Item("x", labels={"label": "z"})])


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(UserError, match="1,001 different values"):
        MODALITY.fit([Item(f"t{i}", labels={"label": str(i)}) for i in range(1_001)], TextOptions())


def test_decoding_stops_at_end_and_skips_special_tokens() -> None:
    encoder = MODALITY.fit([Item("abc")], TextOptions())
    s = encoder.space.special
    ids = torch.tensor([[s["begin"], 0, 1, s["end"], 2, 2], [0, s["pad"], 2, 2, 1, 0]])
    assert encoder.decode(ids) == ["ab", "accba"]
    assert encoder.decode(ids[0]) == ["ab"]
    assert encoder.decode(torch.tensor([[s["end"], 0]])) == [""]
    assert encoder.decode(ids[:, :0]) == ["", ""] and encoder.decode(ids[0, :0]) == [""]
    assert encoder.prompt("cab").tolist() == [2, 0, 1]


def test_valid() -> None:
    encoder = MODALITY.fit([Item("abc")], TextOptions())
    assert encoder.valid("abc")
    assert not encoder.valid("a\ufffd")
    assert not encoder.valid(" \n")
    assert not encoder.valid(5)


def test_choice_of_tokenizer_and_its_reason() -> None:
    small = [Item("abc " * 100)]
    assert MODALITY.fit(small, TextOptions()).tokenizer.kind == "chars"
    assert MODALITY.fit(small, TextOptions(tokenizer="bytes")).space.vocab == (259,)
    by_size = MODALITY.fit(small, TextOptions(vocab_size=300))
    assert by_size.tokenizer.kind == "bpe"
    assert "set by the user" in by_size.notes[0]
    many = "".join(chr(0x4E00 + i) for i in range(300))
    assert MODALITY.fit([Item(many)], TextOptions()).tokenizer.kind == "bytes"
    with pytest.raises(UserError, match="No text to train on"):
        MODALITY.fit([], TextOptions())


def test_a_loaded_encoder_encodes_the_same(tmp_path: Path) -> None:
    items = labelled()
    encoder = MODALITY.fit(items, TextOptions(tokenizer="bpe", vocab_size=300, context=32))
    encoder.save(tmp_path / "e")
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == ["encoder.json", "tokenizer.json"]
    again = MODALITY.load(tmp_path / "e")
    assert (again.space, again.conds, again.notes) == (encoder.space, dict(encoder.conds), encoder.notes)
    assert torch.equal(again.encode(items).x, encoder.encode(items).x)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04pickle", b'{"format": "afresh.image"}', b"[1]"])
def test_damaged_encoder_is_refused(tmp_path: Path, content: bytes) -> None:
    MODALITY.fit([Item("abc")], TextOptions()).save(tmp_path)
    (tmp_path / "encoder.json").write_bytes(content)
    with pytest.raises(UserError, match=r"encoder\.json is not an encoder"):
        MODALITY.load(tmp_path)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    MODALITY.fit([Item("abc")], TextOptions()).save(tmp_path)
    saved = json.loads((tmp_path / "encoder.json").read_bytes())
    (tmp_path / "encoder.json").write_text(json.dumps(saved | {"surprise": 1}))
    with pytest.raises(UserError, match="surprise"):
        MODALITY.load(tmp_path)


def test_written_files_contain_the_texts(tmp_path: Path) -> None:
    encoder = MODALITY.fit([Item("abc")], TextOptions())
    names = encoder.write(["one\r\né", "two"], tmp_path / "out", ["0001", "a/../b"])
    assert names == ["0001.txt", "a_.._b.txt"]
    assert (tmp_path / "out" / names[0]).read_bytes() == "one\r\né".encode()


def test_of_texts_and_conversations_those_with_more_bytes_are_kept_and_it_is_said(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Very well, thank you."}]
    put(tmp_path / "a.txt", "a short text")
    put(tmp_path / "talks.jsonl", lines([{"messages": talk}]))
    corpus = read(tmp_path)
    assert [bool(i.turns) for i in corpus.items] == [True] and corpus.settled["learn"] == "conversations"
    (note,) = [n for n in corpus.notes if "not learnt together" in n]
    assert "1 text (12 bytes), such as a.txt, left out: `data.learn=texts` takes them instead" in note
    corpus = read(tmp_path, learn="texts")
    assert values(corpus) == ["a short text"] and corpus.settled["learn"] == "texts"
    with pytest.raises(
        UserError, match=r"no conversations .* `data.learn=conversations`: it holds 1 text, such as a.txt"
    ):
        read(tmp_path / "a.txt", learn="conversations")


def test_from_a_file_to_both_splits(tmp_path: Path) -> None:
    text = "the quick brown fox jumps over the lazy dog\n" * 100
    parts = split(read(put(tmp_path / "a.txt", text)).items, TEXT)
    encoder = MODALITY.fit(parts.train, TextOptions())
    train, heldout = encoder.encode(parts.train), encoder.encode(parts.heldout)
    assert encoder.decode(train.x[None])[0] + encoder.decode(heldout.x[None])[0] == text
    assert train.bytes + heldout.bytes == len(text)


# --------------------------------------------------------------------------- web pages and encodings


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    body = "".join(f"<p>The flour of mill {i} is mixed with water, and then the dough rests.</p>" for i in "abc")
    for i in range(3):
        page = f"<body><nav><a href='/'>Home</a> <a href='/b'>Shop</a></nav><article><h1>Bread {i}</h1>{body}</article>"
        put(tmp_path / f"{i}.html", page + "<footer>All rights reserved.</footer></body>")
    return tmp_path


def test_navigation_of_web_pages_is_not_learnt(pages: Path) -> None:
    pytest.importorskip("trafilatura")
    corpus = read(pages)
    assert corpus.settled["pages"] == "main" and any("of 3 web pages the main text is read" in n for n in corpus.notes)
    assert all("mill c" in v and "Shop" not in v and "rights reserved" not in v for v in values(corpus))
    seen = read(pages, pages="visible")
    assert all("mill c" in v and "Shop" in v and "rights reserved" in v for v in values(seen))


def test_without_the_library_all_that_is_visible_is_read_and_said(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afresh.domains.text.reading.find_spec", lambda name: None)
    corpus = read(pages)
    assert corpus.settled["pages"] == "visible" and all("Shop" in v for v in values(corpus))
    assert any("navigation, which is learnt too" in n and "afresh[collect]" in n for n in corpus.notes)


def test_files_in_other_encodings_are_read_together_and_keep_their_place(tmp_path: Path) -> None:
    words = ["W\u00fcrzburg", "plain", "K\u00f6ln", "Stra\u00dfe", "Gr\u00fc\u00dfe", "\u00dcbung"]
    for i, word in enumerate(words):
        put(tmp_path / f"{i}.txt", f"{word} and so on\n".encode("utf-8" if i == 4 else "latin-1"))
    corpus = read(tmp_path)
    assert values(corpus) == [f"{word} and so on\n" for word in words] and not corpus.refused
    assert any("4 files are not UTF-8 and read as cp1252" in n for n in corpus.notes)
