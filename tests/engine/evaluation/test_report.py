"""The report: safe, self-contained, complete and accessible."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afresh.core import Question, Score, UserError
from afresh.engine.evaluation.curves import Curves, draw_curves, draw_score, number, scale, thin
from afresh.engine.evaluation.report import Sample, Section, card_markdown, image_view, render, write_report
from afresh.engine.evaluation.score_descriptions import words_of
from afresh.engine.evaluation.verdict import Verdict

NAMES = (
    *(
        "frechet",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "two_sample",
        "appearance",
        "variety",
        "likeness",
    ),
    *("conditional_accuracy", "near_copies", "close_copies", "nearest_ratio", "bits_per_dim", "bits_per_byte"),
    *(
        "bits_per_token",
        "parses",
        "known_words",
        "distinct_1",
        "distinct_2",
        "distinct_3",
        "verbatim_50",
        "longest_copy",
    ),
    *("valid_scores", "copied_runs_8", "completions_valid", "items_valid", "items_kid", "items_near_copies"),
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def png(width: int = 8, height: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(width * height) % 256).astype(np.uint8).reshape(height, width)).save(buffer, "PNG")
    return buffer.getvalue()


class Page(HTMLParser):
    """Elements of a page, with a check that they nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


SCORE = Score("Frechet distance", 3.25, 2.5, 4.0, 1797, "lower", floor=2.25, control=88.5)
EVIL = '<script>alert("1")</script> & </pre> \x00\x1b[31m \udc80 {{ 7 * 7 }}'


def full(title: str = "Digits by flow") -> Section:
    return Section(
        title=title,
        subtitle="8 x 8",
        verdict=Verdict("good", "As good as <real> ones.", "Make more.", "afresh sample runs/x -n 64"),
        facts=[("parameters", 312455), ("seconds", 41.25)],
        samples=[Sample(png=png(), caption="seven"), Sample(text=EVIL, prompt="<i>once</i> ", caption="text <b>")],
        previews=[(100, png()), (2000, "later <em>text</em>")],
        curves=[Curves({"training": [(0.0, 5.5), (10.0, 1.25)], "held out": [(10.0, 1.5)]}, "step", "nats", "Loss")],
        scores=[SCORE],
        not_measured=[("bits per byte", "no likelihood")],
        plan=[("width", "64", "a | b")],
        card={"split": "9f3a", "encoder": {"name": "conv", "sha256": "ab34"}, "seeds": [0, 1]},
        data=[("training", 1436)],
        data_examples=[Sample(png=png(28, 28), caption="four")],
        notes=["few images"],
        next_commands=['afresh sample runs/x --prompt "a < b"'],
    )


def test_every_fact_is_on_the_page() -> None:
    page = Page(render("A title", [full()]))
    text = " ".join(page.text)
    wanted = "A title|Digits by flow|8 x 8|312,455|41.25|seven|step 100|step 2,000|later <em>text</em>|Loss|training"
    wanted += "|1.25 at the end|Frechet distance|3.25|2.5 to 4|2.25|88.5|1,797|bits per byte|no likelihood|width|64"
    wanted += "|As good as <real> ones.|Make more.|good"
    wanted += "|afresh sample runs/x -n 64|a | b|9f3a|encoder: name|conv|0, 1|1,436|four|few images"
    missing = [w for w in wanted.split("|") if w.strip() not in text]
    assert missing == []
    assert 'afresh sample runs/x --prompt "a < b"' in text


def test_the_verdict_comes_first_then_samples_curves_numbers_and_the_rest() -> None:
    html = render("t", [full()])
    order = [
        html.index(x)
        for x in (">good<", "seven<", ">Curves<", ">Numbers<", ">Plan<", ">Protocol card<", ">Next commands<")
    ]
    assert order == sorted(order)


def test_samples_are_text_and_never_markup() -> None:
    html = render(EVIL, [full(EVIL)])
    page = Page(html)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "i", "em"})
    text = "".join(page.text)
    assert '<script>alert("1")</script> & </pre> \u2400\u241b[31m \\udc80 {{ 7 * 7 }}' in text
    html.encode("utf-8")  # no lone surrogate is left


def test_code_is_highlighted_across_the_prompt_and_keeps_every_character() -> None:
    code = '\n\n  <b>&amp;</b>"""\n\tif x < 1:\n    return "a & b"\n'
    section = Section("t", samples=[Sample(text=code, prompt='def f():\n    """A', language="python")])
    html = render("t", [section])
    body = re.search(r'<pre tabindex="0" class="code">\n(.*?)</pre>', html, re.S)
    assert body is not None
    assert "".join(Page(body[1]).text) == 'def f():\n    """A' + code
    assert '<span class="k">return</span>' in body[1] and '<span class="k">def</span>' in body[1]
    assert '<span class="k">if</span>' in body[1]  # the docstring that the prompt opened is closed


def test_an_unknown_language_is_shown_as_it_is() -> None:
    html = render("t", [Section("t", samples=[Sample(text="a < b", language="no such tongue")])])
    assert "a &lt; b" in html


def test_the_page_loads_nothing() -> None:
    html = render("t", [full("a"), full("b")])
    assert "http:" not in html and "https:" not in html and "@import" not in html and "<script" not in html
    assert "default-src 'none'" in html
    for _, attrs in Page(html).elements:
        for name in ("src", "href", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    for url in re.findall(r"url\(([^)]*)\)", html):
        assert url.startswith("#")


def test_ids_are_unique_and_links_and_clips_find_them() -> None:
    html = render("t", [full("a"), full("b"), full("c")])
    elements = Page(html).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="|url\()#([^")]+)', html)
    assert targets and set(targets) <= set(ids)


def test_a_table_of_contents_only_for_several_sections() -> None:
    assert "<nav" not in render("t", [full()])
    html = render("t", [full("a"), full("b")])
    assert html.count('<a href="#s') == 2 and 'id="s2"' in html


def test_images_have_alternative_texts_and_small_ones_are_not_interpolated() -> None:
    elements = Page(render("t", [full()])).elements
    for tag, attrs in elements:
        if tag == "img":
            assert attrs["alt"]
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
    tiny, large = image_view(png(), "seven", "sample 1"), image_view(png(300, 200), "", "sample 2")
    assert (tiny["width"], tiny["height"], tiny["pixels"], tiny["alt"]) == (192, 192, True, "sample 1: seven")
    assert (large["width"], large["height"], large["pixels"], large["alt"]) == (300, 200, False, "sample 2")
    assert base64.b64decode(tiny["src"].partition(",")[2]) == png()


def test_groups_have_headings_and_the_rest_of_a_large_group_is_folded_and_smaller() -> None:
    few = [Sample(png=png(), caption=str(i), group="as learnt") for i in range(3)]
    many = [Sample(png=png(), caption=str(i), group="guided <2>") for i in range(31)]
    html = render("t", [Section("t", samples=[*few[:1], *many, *few[1:]])])
    assert html.count("<h3>") == 2 and html.index("<h3>as learnt") < html.index("<h3>guided &lt;2&gt;")
    images = [a for tag, a in Page(html).elements if tag == "img"]
    assert [a["width"] for a in images] == ["192"] * 23 + ["96"] * 11
    assert images[1]["alt"] == "sample, as learnt, 33: 1"


def test_numbers_are_folded_by_question_and_said_in_words() -> None:
    names = ("kid", "kid/random_net", "coverage", "near_copies", "frechet distance of mine")
    scores = [Score(name, 0.5, None, None, 9, "lower", 0.1, 1.0) for name in names]
    html = render("t", [Section("t", scores=scores)])
    questions = re.findall(r"<summary><strong>(.*?\?|Other.*?)</strong>", html)
    assert questions == ["Does it look real?", "Is it varied?", "Did it copy?", "Other numbers"]
    text = " ".join(Page(html).text)
    assert "distance of the whole set (KID), in a random network" in text and "frechet distance of mine" in text
    terms = [a for tag, a in Page(html).elements if tag == "summary" and "title" in a]
    assert len(terms) == 4 and all(a["title"] for a in terms)  # on hover; by tap and keyboard as a fold
    assert html.index("Beside them") < html.index("in a random network")


def test_every_score_of_a_metric_has_words_and_a_question() -> None:
    names = (*NAMES, "kid/pixel_gaussian", "conditional_accuracy/shape", "interval_divergence")
    for name, words in words_of(names).items():
        assert words.question != Question.OTHER and words.meaning and "_" not in words.name, name


def test_what_is_not_a_png_is_refused() -> None:
    with pytest.raises(ValueError, match="PNG"):
        render("t", [Section("t", samples=[Sample(png=b"\xff\xd8\xff\xe0 not a png at all, but long enough")])])


def test_empty_fields_leave_no_trace() -> None:
    html = render("t", [Section("only a title")])
    body = html[html.index("<body>") :]
    headings = ("Curves", "Numbers", "About", "Plan", "Data", "Protocol card", "Not measured")
    for absent in (*headings, "<table", "<pre", "<dl", "<svg", "<details", "verdict"):
        assert absent not in body


# --------------------------------------------------------------------------- graphics


def place(svg: str, pattern: str) -> float:
    match = re.search(pattern, svg)
    assert match is not None
    return float(match[1])


def test_a_score_lies_between_its_marks_in_proportion_and_better_is_right() -> None:
    score = Score("x", 25.0, 20.0, 30.0, 9, "lower", floor=0.0, control=100.0)
    assert scale(score) == (100.0, 0.0)
    svg = draw_score(score, width=220)  # 200 between the ends
    value = place(svg, r'cx="([\d.]+)"')
    control, floor = place(svg, r"M([\d.]+) 3h") + 4, place(svg, r"M([\d.]+) 21h") + 4
    assert (control, floor) == (10.0, 210.0)
    assert value == pytest.approx(10 + 0.75 * 200)
    assert 'x1="150.0" x2="170.0"' in svg  # 30 to 20
    higher = Score("x", 0.75, None, None, 9, "higher", floor=1.0, control=0.0)
    assert place(draw_score(higher, width=220), r'cx="([\d.]+)"') == pytest.approx(160)


@pytest.mark.parametrize(
    "score",
    [
        Score("nothing to compare", 1.0, 0.5, 1.5, 3, "lower"),
        Score("no value", float("nan"), None, None, 0, "lower", floor=0.0, control=1.0),
        Score("all alike", 1.0, 1.0, 1.0, 3, "higher", floor=1.0, control=1.0),
    ],
)
def test_no_drawing_where_there_is_no_scale(score: Score) -> None:
    assert draw_score(score) == ""
    assert score.name in render("t", [Section("t", scores=[score])])


def test_a_value_beyond_its_floor_stays_inside_the_drawing() -> None:
    svg = draw_score(Score("x", 1.2, 1.1, 1.3, 9, "higher", floor=1.0, control=0.0), width=200)
    assert 10 <= place(svg, r'cx="([\d.]+)"') <= 190
    assert place(svg, r"M([\d.]+) 21h") + 4 < place(svg, r'cx="([\d.]+)"')


def test_long_lines_are_means_and_the_page_says_so() -> None:
    points = [(float(i), float(i % 2)) for i in range(1000)]
    means, k = thin(points, 400)
    assert k == 3 and len(means) == 334 and means[0] == (1.0, pytest.approx(1 / 3))
    assert thin(points[:400], 400) == (points[:400], 1)
    assert "shown as means of 3 points" in render("t", [Section("t", curves=[Curves({"a": points})])])


def test_a_chart_follows_the_page_and_is_the_same_every_time() -> None:
    chart = Curves({"a": [(0, 1.0), (1, float("nan")), (2, 10.0)], "b": [(0, 2.0)]}, "step", "$nats_x$ <&>", log_y=True)
    svg = draw_curves(chart)
    assert svg == draw_curves(chart) and "xmlns" not in svg
    assert "var(--series-1)" in svg and "var(--series-2)" in svg and "var(--soft)" in svg and "#0102" not in svg
    assert "$nats_x$ &lt;&amp;&gt;" in svg and "mathdefault" not in svg
    assert "a from 1 at 0 to 10 at 2" in svg


def test_numbers_in_words() -> None:
    texts = [number(x) for x in (0.0123456, 12.3456, 1234.56, 2000, 1e-7, None, float("nan"), 0.0, 312455)]
    assert texts == ["0.01235", "12.35", "1,235", "2,000", "1e-07", "–", "–", "0", "312,455"]


# --------------------------------------------------------------------------- files


def test_three_files_with_the_same_facts(tmp_path: Path) -> None:
    hole = Score("hole", float("nan"), None, None, 0, "none")
    section = Section("s", scores=[SCORE, hole], samples=[Sample(png=png(), caption="c")], card={"a": {"b": 1}})
    path = write_report(tmp_path / "new" / "report.html", "t", [section])
    assert sorted(p.name for p in path.parent.iterdir()) == ["card.md", "report.html", "report.json"]
    assert path.read_text("utf-8") == render("t", [section])
    (saved,) = json.loads(path.with_suffix(".json").read_bytes())["sections"]
    assert saved["scores"][0] == {
        "name": "Frechet distance",
        "value": 3.25,
        "low": 2.5,
        "high": 4.0,
        "n": 1797,
        "better": "lower",
        "floor": 2.25,
        "control": 88.5,
    }
    assert saved["scores"][1]["value"] is None
    assert saved["samples"][0]["png"]["width"] == 8 and saved["card"] == {"a": {"b": 1}}
    card = path.with_name("card.md").read_text("utf-8")
    assert "| Frechet distance | 3.25 | 2.5 to 4 | 1,797 | 2.25 | 88.5 | lower is better |" in card


def test_a_failed_write_leaves_the_old_report(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", "old", [full()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="PNG"):
        write_report(path, "new", [Section("s", samples=[Sample(png=b"no")])])
    assert path.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_report(tmp_path / "file" / "report.html", "t", [])


def test_every_fact_is_in_the_card_below_its_heading() -> None:
    parts = dict(part.split("\n", 1) for part in re.split("^#+ ", card_markdown("A title", [full()]), flags=re.M)[1:])
    assert list(parts) == [
        "A title",
        "Digits by flow",
        "Model",
        "Data",
        "Measured",
        "Notes",
        "Plan",
        "Protocol",
        "Next",
    ]
    wanted = {
        "Digits by flow": ["8 x 8", "**Verdict: good.**", "Make more.", "    afresh sample runs/x -n 64\n"],
        "Model": ["312,455", "41.25"],
        "Data": ["| training | 1,436 |"],
        "Measured": ["| Frechet distance | 3.25 | 2.5 to 4 | 1,797 | 2.25 | 88.5 |", "- bits per byte: no likelihood"],
        "Notes": ["- few images"],
        "Plan": ["| width | 64 |"],
        "Protocol": ["| split | 9f3a |", "| encoder: name | conv |", "| seeds | 0, 1 |"],
        "Next": ['    afresh sample runs/x --prompt "a < b"\n'],
    }
    assert [(k, text) for k, texts in wanted.items() for text in texts if text not in parts[k]] == []
    bare = card_markdown("A title", [Section("Digits")])
    assert bare.split() == ["#", "A", "title", "##", "Digits"]


def test_the_card_keeps_its_tables_whole() -> None:
    card = card_markdown("t", [full()])
    assert "| width | 64 | a \\| b |" in card and "- bits per byte: no likelihood" in card
