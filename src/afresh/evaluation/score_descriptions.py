"""Scores in words: a name that a person reads, what it means, and the question that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REAL = "Does it look real?"
FOLLOWS = "Is it in the language of the data?"
VARIED = "Is it varied?"
OBEYS = "Does it obey?"
COPIED = "Did it copy?"
PREDICTS = "Does it predict what it has not seen?"
OTHER = "Other numbers"
QUESTIONS = (REAL, FOLLOWS, VARIED, OBEYS, COPIED, PREDICTS, OTHER)


@dataclass(frozen=True)
class ScoreWords:
    """How a score is called, what it means, and which question it answers."""

    name: str
    meaning: str
    question: str


WORDS: Mapping[str, ScoreWords] = {
    "frechet": ScoreWords(
        "distance of mean and spread (Fréchet)",
        "How far the mean and the spread of samples are from those of held-out items, in the features of a network.",
        REAL,
    ),
    "kid": ScoreWords(
        "distance of the whole set (KID)",
        "How far samples are from held-out items as a set, by a kernel in the features of a network; 0 is as good as "
        "real.",
        REAL,
    ),
    "precision": ScoreWords("samples that look real (precision)", "The share of samples near some real item.", REAL),
    "density": ScoreWords("closeness to real items (density)", "How many real items each sample is near to.", REAL),
    "two_sample": ScoreWords(
        "told from real by a classifier",
        "How often a classifier tells samples from held-out items: one half is by chance, 1 is always.",
        REAL,
    ),
    "sharpness": ScoreWords(
        "fine detail", "The energy of the finest detail, as a share of that of real images; below 1 is blurred.", REAL
    ),
    "likeness": ScoreWords(
        "large shapes like those of real ones",
        "The correlation of the large shapes of a sample with the nearest training image; noise has little.",
        REAL,
    ),
    "items_kid": ScoreWords(
        "distance of the whole set (KID)", "How far samples are from held-out items as a set.", REAL
    ),
    "items_valid": ScoreWords("valid items", "The share of samples that are valid.", FOLLOWS),
    "known_words": ScoreWords(
        "letters in words of the data", "The share of letters that belong to words of the training text.", FOLLOWS
    ),
    "parses": ScoreWords("valid so far", "The share of samples that are valid programs as far as they go.", FOLLOWS),
    "valid_scores": ScoreWords("valid scores", "The share of samples that are valid scores of music.", FOLLOWS),
    "valid_molecules": ScoreWords("valid molecules", "The share of samples that RDKit reads and sanitises.", FOLLOWS),
    "filters": ScoreWords(
        "molecules that pass filters",
        "The share of valid samples without groups that medicinal chemists avoid (MCF, PAINS), rare elements, charges "
        "and large rings.",
        FOLLOWS,
    ),
    "fcd": ScoreWords(
        "distance of mean and spread (FCD)",
        "How far samples are from held-out molecules in the features of ChemNet.",
        REAL,
    ),
    "snn": ScoreWords(
        "likeness to the nearest held-out molecule (SNN)", "By fingerprints; 1 is the same molecule.", REAL
    ),
    "frag": ScoreWords("fragments as common as in real ones", "The cosine of the counts of BRICS fragments.", REAL),
    "scaf": ScoreWords("scaffolds as common as in real ones", "The cosine of the counts of scaffolds.", REAL),
    "logP_distance": ScoreWords("difference in logP", "How far the distribution is from that of real ones.", REAL),
    "SA_distance": ScoreWords(
        "difference in synthetic accessibility", "How far the distribution is from that of real ones.", REAL
    ),
    "QED_distance": ScoreWords(
        "difference in drug-likeness (QED)", "How far the distribution is from that of real ones.", REAL
    ),
    "weight_distance": ScoreWords(
        "difference in weight, in g/mol", "How far the distribution is from that of real ones.", REAL
    ),
    "unique_at_1000": ScoreWords("different ones of 1,000", "The share of different molecules.", VARIED),
    "unique_at_10000": ScoreWords("different ones of 10,000", "The share of different molecules.", VARIED),
    "int_div": ScoreWords("distance between molecules", "One minus the mean likeness of two samples.", VARIED),
    "int_div2": ScoreWords(
        "distance between molecules, near ones counting more",
        "One minus the root mean square likeness of two samples.",
        VARIED,
    ),
    "novel": ScoreWords("new molecules", "The share of different samples that are no training molecules.", COPIED),
    "completions_valid": ScoreWords(
        "valid completions", "The share of holes filled so that the file is valid.", FOLLOWS
    ),
    "completions_exact": ScoreWords("exact completions", "The share of holes filled as in the original.", FOLLOWS),
    "recall": ScoreWords("real items within reach (recall)", "The share of real items near some sample.", VARIED),
    "coverage": ScoreWords(
        "real items with a sample near (coverage)",
        "The share of real items that have a sample among their neighbours.",
        VARIED,
    ),
    "variety": ScoreWords(
        "distance between samples", "How far samples are from each other, as a share of that of real ones.", VARIED
    ),
    "items_diversity": ScoreWords("distance between samples", "How much two samples differ.", VARIED),
    "distinct_1": ScoreWords("distinct words", "Distinct words, as a share of all.", VARIED),
    "distinct_2": ScoreWords("distinct pairs of words", "Distinct pairs of words, as a share of all.", VARIED),
    "distinct_3": ScoreWords(
        "distinct runs of three words", "Distinct runs of three words, as a share of all.", VARIED
    ),
    "conditional_accuracy": ScoreWords(
        "what was asked for", "How often an independent classifier sees the requested label in the sample.", OBEYS
    ),
    "near_copies": ScoreWords(
        "near copies of training items",
        "The share of samples nearer to a training item than 99% of held-out items are; 1% is by chance.",
        COPIED,
    ),
    "close_copies": ScoreWords(
        "samples very near to a training item",
        "The share of samples at a fifth or less of the usual distance of held-out items to a training item; near "
        "duplicates in the data give held-out items such a share as well.",
        COPIED,
    ),
    "items_near_copies": ScoreWords(
        "near copies of training items",
        "The share of samples nearer to a training item than 99% of held-out ones.",
        COPIED,
    ),
    "nearest_ratio": ScoreWords(
        "distance to the nearest training item", "Relative to that of held-out items: 1 is ideal, 0 is copying.", COPIED
    ),
    "verbatim_50": ScoreWords(
        "copied word for word", "The share of runs of 50 bytes that stand in the training text.", COPIED
    ),
    "longest_copy": ScoreWords(
        "longest copied run, in bytes", "The longest run that stands in the training text.", COPIED
    ),
    "copied_runs_8": ScoreWords(
        "copied phrases", "The share of runs of 8 notes that stand in a training piece.", COPIED
    ),
    "bits_per_byte": ScoreWords(
        "bits per byte", "How well unseen text is predicted: fewer bits are better; compressors stand beside.", PREDICTS
    ),
    "bits_per_dim": ScoreWords("bits per value", "How well unseen items are predicted; bytes take 8.", PREDICTS),
    "bits_per_token": ScoreWords("bits per token", "How well the tokens of unseen items are predicted.", PREDICTS),
    "HR@10": ScoreWords(
        "next choices among the first ten (HR@10)",
        "The share of held-out choices among the ten best of the whole catalogue, by all that the user chose before.",
        PREDICTS,
    ),
    "NDCG@10": ScoreWords(
        "next choices near the top (NDCG@10)",
        "As HR@10, with a choice counting less the lower it stands: 1 in the first place, 0.29 in the tenth.",
        PREDICTS,
    ),
    "retained_HR@10": ScoreWords(
        "what the base knew, among the first ten (HR@10)",
        "As HR@10, of the events that were held out from the base of a tuned run; the control is the base itself.",
        PREDICTS,
    ),
    "retained_NDCG@10": ScoreWords(
        "what the base knew, near the top (NDCG@10)",
        "As NDCG@10, of the events that were held out from the base of a tuned run; the control is the base itself.",
        PREDICTS,
    ),
    "retained_MRR": ScoreWords(
        "what the base knew, by its place (MRR)",
        "As MRR, of the events that were held out from the base of a tuned run; the control is the base itself.",
        PREDICTS,
    ),
    "MRR": ScoreWords("mean of one over the rank (MRR)", "1 if the next choice always stands first.", PREDICTS),
    "calibration_error": ScoreWords(
        "error of the stated probabilities",
        "How far the probability of a recommended item is from how often it is the next choice.",
        PREDICTS,
    ),
    "coverage@10": ScoreWords(
        "recommended items of the catalogue", "The share of the catalogue that is recommended to anyone.", VARIED
    ),
    "gini@10": ScoreWords(
        "concentration of recommendations (Gini)",
        "0 if every item is recommended equally often, 1 if one item alone is.",
        VARIED,
    ),
    "novelty@10": ScoreWords(
        "novelty of recommendations, in bits",
        "The rarity of recommended items: an item that half of the users chose has 1 bit, one of a thousand 10.",
        VARIED,
    ),
    "diversity@10": ScoreWords(
        "difference within a list",
        "1 minus the similarity of two items of a list, by who chose both.",
        VARIED,
    ),
    "popularity_lift@10": ScoreWords(
        "popularity beyond the users' own",
        "How much more popular recommendations are than what the same users chose: 0 for equally, 1 for twice.",
        VARIED,
    ),
}
BESIDE: Mapping[str, str] = {
    "pixel_gaussian": "of a trivial model",
    "random_net": "in a random network",
    "pixel_pca": "in main components of values",
    "pixels": "in values",
    "features": "in features",
    "blurred": "of blurred real ones",
    "subsets": "over random subsets",
    "neighbour": "by the nearest neighbour",
    "mlp_pixels": "by a network on values",
    "bound": "an upper bound",
    "gzip": "of gzip",
    "lzma": "of lzma",
    "ease": "of EASE",
    "item_knn": "of nearest neighbours",
    "ials": "of iALS",
    "popularity": "of popularity",
    "lzma_train": "of lzma after the training text",
}


def words_of(name: str) -> ScoreWords:
    """The words of a score such as "kid" or "kid/random_net". An unknown one keeps its name."""
    base, _, rest = name.partition("/")
    found = WORDS.get(base)
    if found is None:
        meaning = "How far the distribution is from that of real music." if base.endswith("_divergence") else ""
        return ScoreWords(name.replace("_", " ") if meaning else name, meaning, REAL if meaning else OTHER)
    beside = f", {BESIDE.get(rest, rest)}" if rest else ""
    return ScoreWords(found.name + beside, found.meaning, found.question)
