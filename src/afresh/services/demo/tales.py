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
WISHES = ("a night without clouds", "enough bread for the winter", "a letter from far away", "a song that nobody knows")
# For each find the sentences of a tale: a paragraph each, in which every line is a choice.
TEXTS = {
    "boat": """{time} {p} finds a {colour} boat on the shore.
{time} {p} finds a {colour} boat under the bridge.
{time} {p} finds a {colour} boat between the reeds.

{P} pushes it into the water, and the wind carries {o} to a {place}.
The boat is so light that {p} sails all day, until {p} comes to a {place}.

At the {place} an old sailor gives {o} a {other} stone and asks for nothing.
At the {place} children are waiting with {other} flags, and they sing for {o}.
Nobody lives at the {place}, but a {other} bell rings whenever the tide turns.

At sunset the {colour} boat brings {o} home.
When the sun goes down, {p} turns the {colour} boat around and sails home.
{P} sleeps in the {colour} boat and is home before breakfast.""",
    "fish": """{time} {p} meets a {colour} fish that can speak.

It is caught in an old net, and {p} sets it free.
It has lost its way, and {p} shows it the way to the sea.

For this the fish grants {o} one wish, and {p} wishes for {wish}.
Make a wish, says the fish, and {p} wishes for {wish}.

The {colour} fish jumps once, and the wish comes true.
Before the sun goes down, {p} has {q} wish, and the {colour} fish is gone.
Since that day {p} leaves crumbs at the water for the {colour} fish.""",
    "flower": """{time} a {colour} flower opens beside the door.
{time} a {colour} flower opens where the path ends.
{time} a {colour} flower opens between two stones.

It smells of honey, and {p} cannot work any more.
It smells of rain, and {p} cannot work any more.
It sings softly like a bell, and {p} sits down to listen.

The next day there are a hundred of them, and the whole village comes to see {o}.
In the night a {other} moth comes and tells {o} where the flower comes from.
A {other} bird carries a seed of it away, over the hills.

In autumn the {colour} flower falls asleep, and {p} covers it with leaves.
{P} never picks the {colour} flower, and every spring it opens again.
To this day {p} waters the {colour} flower before breakfast.""",
    "balloon": """{time} a {colour} balloon lands on the roof.
{time} a {colour} balloon lands in the apple tree.
{time} a {colour} balloon lands in the middle of the road.

Nobody is in the basket, so {p} climbs in and rises above the hills.
In the basket sits a {other} cat, and {p} asks if there is room for two.

From above {p} sees the river, the village and the house, all as small as toys.
Over the forest the wind tells {o} its name.

At sunset the {colour} balloon comes down, and {p} walks home through the grass.
{P} ties the {colour} balloon to the chimney, in case it wants to stay.
When the stars come out, {p} lets the {colour} balloon fly on alone.""",
}
PLOTS = {find: [sentence.split("\n") for sentence in text.split("\n\n")] for find, text in TEXTS.items()}


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
