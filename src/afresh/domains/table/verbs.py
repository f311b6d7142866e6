"""The verbs of tables: `rows` and `impute`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from afresh.core.verb import Option, Setting, UploadedFile, lazily, verb
from afresh.verbs.options import TableFormat

if TYPE_CHECKING:
    from afresh.domains.table.draw import DrawnRows, Imputed
    from afresh.runs.run import Run


WHY_NOT = lazily("afresh.domains.table.draw:why_not")


@verb(
    "rows",
    able=WHY_NOT,
    result="{rows, notes}",
    summary="synthetic rows of a table, also with given values",
    leads="Make rows",
    files="The folder for rows.csv or rows.parquet.",
    works=True,
)
def rows(
    run: Run,
    n: Annotated[
        int,
        Ge(1),
        Le(1_000_000),
        Option("Rows that are drawn.", flags=("-n",), json=Annotated[int, Ge(1), Le(20_000)]),
    ] = 100,
    *,
    given: Annotated[
        Mapping[str, str] | None,
        Option(
            "A value that all rows have; may be repeated. `COLUMN=` is a missing value.",
            metavar="COLUMN=VALUE",
            shell=list[str],
            parse="afresh.faces.cli.words:texts",
            names="afresh.domains.table.draw:columns_of",
        ),
    ] = None,
    format: Annotated[TableFormat, Option("The format of the file: `csv` or `parquet`.")] = "csv",
    seed: Annotated[int, Option("The same seed gives the same rows.")] = 0,
) -> DrawnRows:
    """Draw synthetic rows of a table, with given values of any columns and the others as likely as the model finds them
    beside these.

    Raises UserError for a run that was not trained on a table, and for columns and values that training does not have.
    """
    from afresh.domains.table.draw import draw_rows

    return draw_rows(run, n, given or {}, format, seed)


@verb(
    "impute",
    able=WHY_NOT,
    result="{filled, notes}",
    summary="missing values of a table filled in",
    files="The folder for the filled tables.",
    works=True,
)
def impute(
    run: Run,
    file: Annotated[
        str | Path,
        Option("A table with missing values in columns that the run learnt.", flags=("--from",), metavar="FILE",
               shell=Path, json=UploadedFile),
    ],
    *,
    draws: Annotated[int, Ge(1), Le(1000), Setting("Times that each missing value is drawn, for its spread.")] = 1,
    seed: Annotated[int, Option("The same seed gives the same values.")] = 0,
) -> Imputed:  # fmt: skip
    """Fill the missing values of a table, each drawn as likely as the model finds it beside the known ones of its row.

    Several draws show how certain a value is: a table is written for each draw, and one of all filled cells with their
    mean and deviation, or their likeliest value and its share.

    Raises UserError for a run that was not trained on a table, and for a file that does not fit it.
    """
    from afresh.domains.table.draw import impute_file

    return impute_file(run, Path(file), draws, seed)
