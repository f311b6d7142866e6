"""Rules of texts: one on each side of each border, and the numbers against a count by hand."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from afresh.services.collect.dataset_store import Store, all_rows
from afresh.services.collect.process import process
from afresh.services.collect.record import About, Found, Record, Rejection
from afresh.services.collect.rules import chosen, rules
from afresh.services.collect.rules.language import language
from afresh.services.collect.rules.repetition import Phrases
from afresh.services.collect.rules.text import text_of
from tests.services.collect.rules.judged import judged, kept, text_after

STORY = (
    "Once there was a fox who lived behind the old mill. Every evening she walked down to the river and listened to "
    "the water. One night the moon did not rise, so the fox asked an owl where it had gone. The owl said that clouds "
    "hide what they love, and that a patient friend would see it again. She waited, and at dawn a thin light lay on "
    "the hills."
)
# Fifty words of five letters, all different.
FIFTY = [a + b + "ond" for a in "bcdfghklmn" for b in "aeiou"]


def lines(count: int, start: str = "", end: str = "") -> str:
    """So many lines of ten different words."""
    return "\n".join(f"{start}{' '.join(f'{w}{i}' for w in FIFTY[:10])}{end}" for i in range(count))


@pytest.mark.parametrize("rule", [r for r in rules() if "text" in r.kinds and r.default], ids=lambda r: r.name)
def test_a_story_passes_every_rule_that_is_on_and_stays_as_it_is(rule: Any) -> None:
    assert text_after(rule.name, Record("text", "s", "w", text=STORY, language="en")) == STORY


BORDERS: list[tuple[str, Any, str, str]] = [  # the rule, its value, a text that it keeps and one that it leaves out
    ("undecodable", 0.01, "a" * 99 + "\ufffd", "a" * 98 + "\ufffd"),
    ("words_few", 50, " ".join(FIFTY), " ".join(FIFTY[:49])),
    ("words_many", 50, " ".join(FIFTY), " ".join([*FIFTY, "more"])),
    ("words_short", 3.0, " ".join(["abc"] * 50), " ".join(["abc"] * 49 + ["ab"])),
    ("words_long", 10.0, " ".join(["a" * 10] * 50), " ".join(["a" * 10] * 49 + ["a" * 11])),
    ("symbols", 0.1, " ".join([*FIFTY, *["#"] * 5]), " ".join([*FIFTY, *["#"] * 6])),
    ("symbols", 0.1, " ".join([*FIFTY, *["..."] * 5]), " ".join([*FIFTY, *["…"] * 3, *["..."] * 3])),
    ("bullets", 0.9, lines(9, "- ") + "\n" + lines(1), lines(10, "• ")),
    ("ellipses", 0.3, lines(3, end="...") + "\n" + lines(7), lines(4, end="…") + "\n" + lines(6)),
    ("letters", 0.8, " ".join([*FIFTY[:40], *["12"] * 10]), " ".join([*FIFTY[:40], *["12"] * 11])),
    ("placeholder", None, "Lorem the ipsum.", "Lorem ipsum dolor sit amet."),
    ("curly_brackets", None, "if (x) return", "if (x) { return }"),
    ("sentences_few", 3, "One. Two! Three?", "One. Two, version 3.5 of it!"),
    ("lines_finished", 0.12, "a.\n" * 3 + "b\n" * 22, "a.\n" * 2 + "b\n" * 22),
    ("lines_short", 0.67, "a\n" * 67 + ("b" * 30 + "\n") * 33, "a\n" * 68 + ("b" * 29 + "cc\n") * 32),
    ("newlines", 0.3, "a b c d e f g h i j\n\n\n", "a b c d e f g h i j\n\n\n\n"),
    ("repeated_lines", 0.3, lines(7) + "\n" + lines(3), lines(6) + "\n" + lines(4)),
    ("repeated_line_characters", 0.2, lines(8) + "\n" + lines(2), lines(7) + "\n" + lines(3)),
    ("repeated_paragraphs", 0.3, "\n\n".join([lines(1)] * 1 + FIFTY), "\n\n".join([lines(1)] * 30 + FIFTY)),
    ("repeated_paragraph_characters", 0.2, "\n\n".join([lines(8), "one"]), "\n\n".join([lines(8), lines(8)])),
]


@pytest.mark.parametrize(
    ("rule", "value", "good", "bad"), BORDERS, ids=[f"{r}-{i}" for i, (r, *_) in enumerate(BORDERS)]
)
def test_each_rule_divides_at_its_border(rule: str, value: Any, good: str, bad: str) -> None:
    assert kept(rule, good, value), judged(rule, good, value)
    assert not kept(rule, bad, value)


def test_short_texts_and_scripts_without_spaces_are_not_judged_by_shares() -> None:
    for name in ("words_short", "words_long", "letters", "symbols", "frequent_2_words", "repeated_5_words"):
        assert kept(name, "1 # # ... " * 4)
        assert kept(name, "今日は天気がいいから散歩に行きましょう。" * 20)


def test_stop_words_are_asked_of_english_texts_alone() -> None:
    english = Record("text", "s", "w", text=" ".join([*FIFTY, "the"]), language="en")
    assert not kept("stop_words", english)
    assert kept("stop_words", replace(english, text=f"{english.text} and"))
    assert kept("stop_words", replace(english, language="de")) and kept("stop_words", replace(english, language=""))


def test_lines_are_removed_and_what_is_left_stays_as_it_was() -> None:
    text = "A heading\n\nThe first sentence ends.\nThis one does\nTwo words.\n"
    assert text_after("lines_unfinished", text) == "\nThe first sentence ends.\nTwo words.\n"
    assert text_after("lines_few_words", text, 3) == "\nThe first sentence ends.\nThis one does\n"
    assert judged("lines_unfinished", "no end") == "no line ends in punctuation"


# --------------------------------------------------------------------------- repetition


def by_hand(words: list[str], n: int) -> float:
    """The share of characters of words in phrases that occurred before, counted by words."""
    inside = set()
    for i in range(len(words) - n + 1):
        if any(words[j : j + n] == words[i : i + n] for j in range(i)):
            inside |= set(range(i, i + n))
    return sum(len(words[i]) for i in inside) / sum(map(len, words))


@pytest.mark.parametrize("seed", range(5))
def test_repeated_phrases_are_those_of_a_count_by_hand(seed: int) -> None:
    rng = random.Random(seed)
    words = [rng.choice(["a", "bb", "ccc"]) for _ in range(120)]
    phrases = Phrases(words)
    shares = [phrases.repeated(n) for n in range(5, 11)]
    assert shares == pytest.approx([by_hand(words, n) for n in range(5, 11)])
    assert shares == sorted(shares, reverse=True) and 0 < shares[0] < 1
    for n in (2, 3, 4):
        phrase, count = phrases.most_frequent(n)
        every = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        assert count == max(map(every.count, every)) == every.count(phrase)


@pytest.mark.parametrize("n", range(5, 11))
def test_phrases_that_are_repeated_leave_a_text_out_above_the_share(n: int) -> None:
    text = " ".join([*FIFTY, *FIFTY[:n]])
    share = n / (50 + n)
    assert kept(f"repeated_{n}_words", text, share + 1e-9) and not kept(f"repeated_{n}_words", text, share - 1e-9)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_phrase_that_is_frequent_leaves_a_text_out_above_the_share(n: int) -> None:
    phrase = FIFTY[:n]
    text = " ".join([*FIFTY, *phrase, "x", *phrase])
    share = 3 * 5 * n / (5 * (50 + 2 * n) + 1)
    assert kept(f"frequent_{n}_words", text, share + 1e-9) and not kept(f"frequent_{n}_words", text, share - 1e-9)


# --------------------------------------------------------------------------- encoding


def test_only_what_is_surely_broken_is_mended() -> None:
    broken = "voilà le café, naïve".encode().decode("latin-1")
    assert text_after("mojibake", f"Good line: Ã is a letter, ½ cup.\n{broken}") == (
        "Good line: Ã is a letter, ½ cup.\nvoilà le café, naïve"
    )
    for fine in ("“quotes” — and 5 µm", "ÀÉÎ", "ﬁn &amp; &lt;b&gt;", "日本語 русский", "SÃO PAULO"):
        assert text_after("mojibake", fine) == fine
    assert "mojibake" in chosen() and not any(r.kinds.count("code") for r in rules() if r.name == "mojibake")


def test_control_characters_go_and_white_space_stays() -> None:
    assert text_after("control_characters", "\ufeffa\x00b\x1b[31mc\x7f\td\n\f") == "abc\td\n\f"


def test_halves_of_characters_stop_nothing(tmp_path: Path) -> None:
    about = About(title="\ud800 title", extra={"note": "\udfff"})
    part = process(
        "s", [Found("\udcff.txt", "A smile \ud83d\ude00 and half \ud800 of one.", about=about, kind="text")], {}
    )
    assert part.records[0].text == "A smile 😀 and half \ufffd of one."
    rejection = Rejection("s", "\udcff.xyz", "find", "files", "why \ud800")
    part.rejections.append(rejection)
    parts = Store(tmp_path).parts("0123456789ab")
    parts.write(0, part, 1)
    row = next(all_rows([parts.tables("000000")[0]]))
    assert row["where"] == "\ufffd.txt" and row["title"] == "\ufffd title" and row["extra"] == [("note", "\ufffd")]
    assert next(all_rows([parts.tables("000000")[1]]))["reason"] == "why \ufffd"


# --------------------------------------------------------------------------- boilerplate

PROSE = "We shared the cookies on the site of the old mill, and my home is at the top of the hill."


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("navigation", "Home | About us | Contact"),
        ("navigation", "Skip to main content"),
        ("navigation", "Read more »"),
        ("navigation", "© 2024 Example Ltd. All rights reserved."),
        ("navigation", "Share on Facebook"),
        ("navigation", "Impressum"),
        ("cookie_notices", "This site uses cookies to improve your experience."),
        ("cookie_notices", "Accept all cookies"),
        ("cookie_notices", "Wir verwenden Cookies, um Inhalte anzuzeigen."),
        ("script_lines", "Please enable JavaScript to view the comments."),
        ("policy_lines", "By signing up you agree to our Privacy Policy."),
    ],
)
def test_lines_of_pages_are_removed_and_prose_is_not(rule: str, line: str) -> None:
    assert text_after(rule, f"{PROSE}\n{line}\n{PROSE}") == f"{PROSE}\n{PROSE}"
    assert str(judged(rule, line)).startswith("nothing but such lines")
    assert text_after(rule, f"{PROSE} I learnt JavaScript and read the terms.") == (
        f"{PROSE} I learnt JavaScript and read the terms."
    )


# --------------------------------------------------------------------------- language


def test_languages_are_noted_and_others_left_out() -> None:
    german = "Am Abend ging der Fuchs hinunter zum Fluss und hörte lange dem Wasser zu, bis der Mond aufging."
    french = "Le soir, le renard descendait vers la rivière et écoutait longtemps le bruit de l'eau sous la lune."
    for text, name in ((STORY, "en"), (german, "de"), (french, "fr")):
        found = judged("language", text)
        assert isinstance(found, Record) and found.language == name and found.scores["language_certainty"] > 0.9
        assert kept("language", text, (name,)) and not kept("language", text, ("ja",))
    chat = Record("conversation", "s", "w", text=json.dumps([{"role": "user", "content": german}]))
    assert isinstance(found := language(chat, ()), Record) and found.language == "de"


def test_the_language_of_a_few_letters_is_left_open() -> None:
    short = judged("language", "Hola", ("en",))
    assert isinstance(short, Record) and short.language == "" and not short.scores


# --------------------------------------------------------------------------- words


def test_words_of_ones_own_file(tmp_path: Any) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# a comment\nBadger\nold  mill\n")
    value = chosen([f"words={file}"])["words"]
    assert value == "badger\nold mill\n" and chosen([], before={"words": value})["words"] == value
    assert judged("words", STORY, value) == "it holds 'old mill'"
    assert judged("words", "A BADGER!", value) == "it holds 'badger'"
    assert kept("words", "badgers of old, and a mill", value)


def test_the_parts_of_a_text() -> None:
    text = text_of("One, two's 3!\n\n  four \n \nfive")
    assert text.words == ["One", "two's", "3", "four", "five"] and text.characters == 17
    assert text.lines == ["One, two's 3!", "four", "five"] and text.paragraphs == ["One, two's 3!", "four", "five"]
    numbers = judged("text_numbers", "One, two's 3!\nfour")
    assert isinstance(numbers, Record) and numbers.scores == {"words": 4, "word_length": 3.25, "lines": 2}
