"""Which columns of a table are the learner, the exercise, the outcome, the time and the skill."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import columns_by_role, plain_name

# Names of columns without case, spaces, marks and a last "id" or "name"; the first that there is counts.
NAMES: Mapping[str, Sequence[str]] = {
    "learner": (
        *("learner", "student", "pupil", "anonstudent", "studentno", "user", "participant", "person", "child"),
        *("account", "member", "reviewer", "schüler", "schülerin", "lernende", "teilnehmer", "studierende", "kandidat"),
        *("benutzer", "nutzer", "élève", "étudiant", "apprenant", "alumno"),
    ),
    "item": (
        *("item", "exercise", "question", "problem", "task", "card", "assignment", "quiz", "content", "word", "step"),
        *("assistment", "lexeme", "aufgabe", "frage", "übung", "karte", "wort", "exercice", "ejercicio", "pregunta"),
    ),
    "correct": (
        *("correct", "iscorrect", "answeredcorrectly", "wascorrect", "right", "isright", "correctness", "outcome"),
        *("correctfirstattempt", "passed", "success", "result", "answer", "score", "points", "richtig", "korrekt"),
        *("ergebnis", "resultat", "bestanden", "juste", "résultat", "correcto", "resultado"),
    ),
    "skill": (
        *("skill", "concept", "kc", "knowledgecomponent", "topic", "tag", "category", "unit", "chapter", "subject"),
        *("deck", "thema", "fach", "kapitel", "sujet", "tema"),
    ),
}
RIGHT = frozenset(
    (
        *("1", "true", "t", "correct", "right", "yes", "y", "pass", "passed", "ok", "success"),
        *("richtig", "wahr", "ja", "korrekt", "bestanden", "oui", "vrai", "juste", "sí", "si", "verdadero", "vero"),
    )
)
WRONG = frozenset(
    (
        *("0", "false", "f", "incorrect", "wrong", "no", "n", "fail", "failed", "error"),
        *("falsch", "nein", "nicht bestanden", "non", "faux", "falso"),
    )
)
# Names that only a log of answers has; one of them must be there for a table to be taken for one without being asked.
TELLING = frozenset(
    (
        *("learner", "student", "pupil", "anonstudent", "studentno"),
        *("exercise", "question", "problem", "quiz", "assistment", "lexeme"),
        *("correct", "iscorrect", "answeredcorrectly", "wascorrect", "right", "isright", "correctness"),
        *("correctfirstattempt", "schüler", "schülerin", "lernende", "aufgabe", "frage", "übung", "richtig", "korrekt"),
        *("élève", "étudiant", "apprenant", "exercice"),
    )
)
SURE = 0.9  # share of the values of a column that are outcomes, if it is that of outcomes
ROWS = 500  # that are looked at
FIELDS = ("learner", "item", "correct", "time", "clock", "skill")
TIME_ROWS = 200  # that say whether a column holds times


def plain(name: str) -> str:
    """A column's plain name without a last "id" or "name"."""
    bare = plain_name(name)
    return re.sub(r"(id|name)s?$", "", bare) or bare


def outcome_of(value: Any) -> float | None:
    """An outcome from 0 (wrong) to 1 (right); None if the value is none. Between them lies a share of the points."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value) if 0 <= value <= 1 else None
    text = str(value).strip().lower() if isinstance(value, str) else ""
    if text in RIGHT or text in WRONG:
        return float(text in RIGHT)
    number = as_number(text)
    return number if number is not None and 0 <= number <= 1 else None


def log_columns(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], set_by_hand: Mapping[str, str]
) -> dict[str, str] | str:
    """The columns of a log of answers by what they are (FIELDS), by their names and by what the outcomes are; or the
    reason why there are none.

    `set_by_hand` names columns by what they are.
    """
    of = columns_by_role(
        columns,
        NAMES,
        set_by_hand,
        plain=plain,
        suits=lambda what, c: what != "correct" or _are_outcomes(rows, c),
        events=lambda name: [row.get(name) for row in rows[:TIME_ROWS]],
    )
    if "item" not in of and "skill" in of and "skill" not in set_by_hand:
        of["item"] = of.pop("skill")  # an exercise is known by its skill alone
    missing = [what for what in ("learner", "item", "correct") if what not in of]
    if missing:
        return f"no column is {' or '.join(missing)} by its name (and holds outcomes, right or wrong)"
    return {what: of[what] for what in FIELDS if what in of}


def _are_outcomes(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether the values of a column are outcomes, nearly all, and most of them right or wrong."""
    outcomes = [outcome_of(v) for row in rows[:ROWS] if (v := row.get(column)) not in (None, "")]
    whole = sum(v in (0.0, 1.0) for v in outcomes)
    return 2 * whole > len(outcomes) and sum(v is not None for v in outcomes) >= SURE * len(outcomes)


def is_log(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bool:
    """Whether a table is a log of answers: who, what, and an outcome that is sometimes right and sometimes wrong, under
    names that nothing else has."""
    known = log_columns(rows, columns, {})
    if isinstance(known, str) or not TELLING & {plain(c) for c in known.values()}:
        return False
    return len({outcome_of(row.get(known["correct"])) for row in rows[:ROWS]} & {0.0, 1.0}) == 2
