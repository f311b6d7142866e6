"""Tales made by a grammar: a hero, a find, what comes of it, and an end. No text is quoted.

A tale is easy to judge: its hero keeps one name and one pronoun, and what is found keeps its colour.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

SHE = ("Anna", "Ella", "Lotta", "Mira", "Nora", "Rosa")
HE = ("Emil", "Jonas", "Karl", "Nils", "Otto", "Tim")
COLOURS = ("blue", "golden", "green", "red", "silver", "white")
HOMES = (
    "a small house by the sea, a tall house beside the river, a white house behind the mill, "
    "a wooden house at the edge of the village, a yellow house near the forest, an old house on the hill"
)
JOBS = (
    "bakes bread, carves little ships, grows apples, keeps bees, mends clocks, paints pictures, repairs old fiddles, "
    "writes letters for the neighbours"
)
TIMES = (
    "After a long rain, Early one Sunday, In the middle of summer, On a quiet afternoon, On a windy day, "
    "On the first day of spring, One evening, One morning"
)
BEGINNINGS = (
    "{name} lives in {home} and {job}.",
    "In {home} lives {name}, who {job}.",
    "There is {home}, and in it lives {name}, who {job}.",
)
PLACES = ("cove", "lighthouse", "harbour", "bay")
WISHES = ("a night without clouds", "enough bread for the winter", "a letter from far away", "a song without an end")
# For each find the sentences of a tale: a paragraph each, in which every line is a choice.
PLOTS = {
    find: [sentence.split("\n") for sentence in sentences]
    for text in Path(__file__).with_name("tales.txt").read_text("utf-8").strip().split("\n\n\n")
    for find, *sentences in [text.split("\n\n")]
}


def tale(seed: int, index: int) -> str:
    """One tale of five sentences; the same arguments give the same tale."""
    rng = random.Random(f"{seed}/{index}")
    she = rng.random() < 0.5
    colour, other = rng.sample(COLOURS, 2)
    name, (p, o, q) = rng.choice(SHE if she else HE), ("she", "her", "her") if she else ("he", "him", "his")
    words = {"name": name, "p": p, "P": p.capitalize(), "o": o, "q": q, "colour": colour, "other": other}
    for key, choices in (("home", HOMES.split(", ")), ("job", JOBS.split(", ")), ("time", TIMES.split(", "))):
        words[key] = rng.choice(choices)
    words |= {"place": rng.choice(PLACES), "wish": rng.choice(WISHES)}
    sentences = (BEGINNINGS, *PLOTS[rng.choice(tuple(PLOTS))])
    return " ".join(rng.choice(choices).format(**words) for choices in sentences)


def write_tales(folder: Path, count: int, seed: int) -> None:
    """`count` tales in one file, with the mark of a new document between them."""
    folder.mkdir(parents=True)
    (folder / "tales.txt").write_text("\n<|endoftext|>\n".join(tale(seed, i) for i in range(count)) + "\n", "utf-8")


def keeps_hero(text: str) -> bool:
    """Whether a tale has exactly one hero, who is called by the right pronouns throughout."""
    words = set(re.findall(r"\w+", text))
    names = words & {*SHE, *HE}
    wrong = {"he", "He", "him", "his"} if names <= set(SHE) else {"she", "She", "her"}
    return len(names) == 1 and not words & wrong


def keeps_colour(text: str) -> bool:
    """Whether what is found is mentioned again, and has one colour throughout."""
    pairs = re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(PLOTS)})\b", text)
    return len(pairs) >= 2 and len(set(pairs)) == 1
