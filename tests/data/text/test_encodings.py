"""Encodings are guessed from the bytes; what is binary or damaged is refused."""

from __future__ import annotations

import pytest

from afresh.data.files import FileError
from afresh.data.text.encodings import TextDecoder, Waiting, guess_encoding

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


LANGUAGES = {
    "de": "Schöne Grüße aus Würzburg. Die Vögel fliegen über die Straße, größer als in Köln.",
    "fr": "Un garçon à côté de la forêt a mangé un oeuf près de l'hôtel. Où est-ce que ça s'arrête ?",
    "es": "El niño comió mañana. ¿Dónde está la señora? Jamás pensó en su corazón.",
    "pt": "Não há razão para ficar à espera. A mãe é forte, então vamos às lições de português.",
    "it": "Perché la città è più bella? Così è la verità, però non può durare. Lunedì andrò là.",
    "sv": "Där går en älg över ån på väg till Malmö. Någon såg en björn på ängen.",
    "da": "Rødgrød med fløde på en ø, så går jeg på en sti. Æblet er på bordet.",
    "pl": "Zażółć gęślą jaźń, piękny dzień, łódka płynie. Chcę iść do domu, bo już jest późno.",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy. Můj přítel šel včera do školy.",
    "hu": "Árvíztűrő tükörfúrógép. A kutya a fűben ült, mert jó idő volt. Őszintén köszönöm.",
    "tr": "Bugün hava çok güzel, şehirde yürüyüş yapacağız. Işık sönük, öğrenciler ağaç dikti.",
    "ru": "мама мыла раму, а потом пошла гулять в парк с собакой. Сегодня хорошая погода.",
    "uk": "Сьогодні гарна погода, ми підемо гуляти в парк. Їжак їсть яблуко, а кішка спить.",
    "el": "Η γάτα κοιμάται στο κρεβάτι και ο σκύλος τρέχει. Σήμερα είναι ωραία μέρα.",
    "he": "היום מזג האוויר יפה מאוד ואנחנו הולכים לפארק עם הכלב. שלום לכולם.",
    "ar": "الطقس جميل جدا اليوم وسنذهب إلى الحديقة مع الكلب. السلام عليكم.",
    "ja": "東京都千代田区。カタカナとひらがな、株式会社の報告書。",
    "zh": "今天天气很好,我们一起去公园散步吧。他说他不想去。",
    "ko": "오늘은 날씨가 매우 좋습니다. 우리는 공원에 갔습니다.",
}
WESTERN = ("de", "fr", "es", "pt", "it", "sv", "da")
WRITTEN = [
    *((name, e) for name in WESTERN for e in ("latin-1", "cp1252", "cp850", "mac_roman")),
    *((name, e) for name in ("pl", "cs", "hu") for e in ("cp1250", "iso8859_2", "cp852")),
    *(("ru", e) for e in ("cp1251", "koi8_r", "cp866")),
    *(("tr", "cp1254"), ("uk", "cp1251"), ("el", "cp1253"), ("he", "cp1255"), ("ar", "cp1256")),
    *(("ja", "cp932"), ("ja", "euc_jp"), ("zh", "gb18030"), ("ko", "cp949")),
]


def read_together(files: dict[str, bytes]) -> tuple[dict[str, str], list[str]]:
    """The texts of the files of a folder, and the notes."""
    decoder = TextDecoder(together=True)
    texts = {}
    for name, raw in files.items():
        try:
            texts[name] = decoder.decode(name, raw)
        except Waiting:
            continue
    decoder.decide()
    texts |= {name: decoder.decode(name, raw) for name, raw in files.items() if name not in texts}
    return texts, decoder.notes()


@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_a_folder_of_files_of_one_word_each_is_read_as_it_was_written(language: str, encoding: str) -> None:
    """A word has too few letters to tell its encoding alone: "Würzburg" is "W³rzburg" in cp850."""
    text = LANGUAGES[language]
    assert guess_encoding(text.encode(encoding)) is not None
    words = {f"{i}.txt": f"{word} and so on" for i, word in enumerate(text.split()) if not word.isascii()}
    found, notes = read_together({name: word.encode(encoding) for name, word in words.items()})
    assert found == words
    assert len(notes) == 1 and (len(words) == 1 or "all of them together" in notes[0])


def test_a_folder_of_several_encodings_is_read_as_each_was_written() -> None:
    files = {"de.txt": ("de", "latin-1"), "fr.txt": ("fr", "cp1252"), "ru.txt": ("ru", "cp1251")}
    files |= {"zh.txt": ("zh", "gb18030"), "utf.txt": ("el", "utf-8"), "wide.txt": ("it", "utf-16")}
    found, notes = read_together({name: LANGUAGES[text].encode(e) for name, (text, e) in files.items()})
    assert found == {name: LANGUAGES[text] for name, (text, _) in files.items()}
    assert any("2 files are not UTF-8 and read as cp1252" in n and "de.txt, fr.txt" in n for n in notes)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_utf_16_is_read_with_and_without_its_mark(language: str, encoding: str) -> None:
    text = LANGUAGES[language] + "\n"
    assert TextDecoder().decode("a.txt", text.encode(encoding)) == text
