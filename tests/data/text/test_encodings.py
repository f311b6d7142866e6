"""Encodings are guessed from the bytes; what is binary or damaged is refused."""

from __future__ import annotations

import pytest

from afresh.data.files import FileError
from afresh.data.text.encodings import TextDecoder, guess_encoding

TEXTS = {
    "cp1252": "Un garçon à côté de la forêt a mangé un œuf près de l'hôtel. Die Vögel fliegen über die Straße. ",
    "cp1250": "Zażółć gęślą jaźń, piękny dzień, łódka płynie. ",
    "cp1251": "Мама мыла раму, а потом пошла гулять в парк с собакой. ",
    "koi8_r": "Мама мыла раму, а потом пошла гулять в парк с собакой. ",
    "cp1253": "Η γάτα κοιμάται στο κρεβάτι και ο σκύλος τρέχει. ",
    "cp932": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "gb18030": "今天天气很好,我们一起去公园散步吧。他说他不想去。",
    "cp949": "오늘은 날씨가 매우 좋습니다. 우리는 공원에 갔습니다. ",
    "utf-16": "Plain, with a byte order mark: é.",
    "utf-32": "Plain, with a byte order mark: é.",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("times", [1, 20])
def test_the_text_is_read_as_it_was_written(encoding: str, times: int) -> None:
    text = TEXTS[encoding] * times
    decoder = TextDecoder()
    assert decoder.decode("a.txt", text.encode(encoding)) == text
    assert decoder.decode("b.txt", text.encode()) == text
    (note,) = decoder.notes()
    assert "a.txt" in note and "b.txt" not in note and "`data.encoding=NAME`" in note


@pytest.mark.parametrize(
    "raw", [b"\x7fELF\0\0", "caf\u00e9, na\u00efve ".encode() + b"\xe9", bytes(range(128, 256)) * 9]
)
def test_what_is_binary_or_damaged_is_not_guessed(raw: bytes) -> None:
    assert guess_encoding(raw) is None
    with pytest.raises(FileError, match=r"binary|invalid UTF-8 at byte"):
        TextDecoder().decode("a", raw)


def test_a_named_encoding_is_used_for_every_file() -> None:
    decoder = TextDecoder("mac_roman")
    assert decoder.decode("a", "né".encode("mac_roman")) == "né" and decoder.notes() == []
    with pytest.raises(FileError, match=r"encoding ascii at byte 1.*`data.encoding=NAME`"):
        TextDecoder("ascii").decode("a", b"n\xe9")
