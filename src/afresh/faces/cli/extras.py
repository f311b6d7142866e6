"""The extras of the package: what can be installed in addition, and what it opens."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Extra:
    """An extra, the top-level modules that its packages bring, and what it `opens`, with commands in backticks."""

    name: str
    modules: tuple[str, ...]
    opens: str

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed. Nothing is imported."""
        return [m for m in self.modules if find_spec(m) is None]

    @property
    def command(self) -> str:
        return f"pip install 'afresh[{self.name}]'"


EXTRAS = (
    Extra(
        "documents",
        ("defusedxml", "docx", "pypdf"),
        "PDF, Word documents and e-books as texts: `afresh train documents/`",
    ),
    Extra("spreadsheets", ("defusedxml", "openpyxl"), "spreadsheets (.xlsx) as tables: `afresh train sales.xlsx`"),
    Extra(
        "collect",
        ("defusedxml", "detect_secrets", "ftfy", "httpx", "phonenumbers", "py3langid", "sqlalchemy", "trafilatura"),
        "data sets from folders, the web, tables and databases: `afresh collect SOURCE... --into DATASET`",
    ),
    Extra("store", ("fsspec", "s3fs"), "runs that live in a bucket: `afresh train photos/ --out s3://BUCKET/photos`"),
    Extra("cluster", ("ray",), "many machines: `--on ADDRESS` of train, serve and collect"),
    Extra("heic", ("pillow_heif",), "photos in HEIC, as telephones take them: `afresh train photos/`"),
    Extra("music", ("symusic",), "music in MIDI and ABC: `afresh train tunes/`, `afresh compose`"),
    Extra(
        "chem",
        ("fcd_torch", "rdkit", "selfies"),
        "molecules: `afresh train molecules.smi`, and their metrics",
    ),
    Extra(
        "captions",
        ("huggingface_hub",),
        "captions of images as vectors of a text encoder of the hub: `afresh train photos/ --data captions=minilm`",
    ),
    Extra(
        "structured",
        ("llguidance",),
        "texts that match a schema: `afresh sample RUN --json-schema`, `--regex`, `--grammar`",
    ),
    Extra(
        "hf",
        ("transformers", "peft", "gguf"),
        "public weights: `afresh tune BASE PATH`, `afresh export RUN --to hf` and `--to gguf`",
    ),
    Extra("onnx", ("onnx", "onnxruntime", "onnxscript"), "models for other programs: `afresh export RUN --to onnx`"),
    Extra(
        "quantized",
        ("bitsandbytes",),
        "bases in 4 or 8 bits a weight: `afresh tune BASE DATA --set train.frozen=nf4`",
    ),
    Extra(
        "diffusers",
        ("diffusers", "transformers", "peft"),
        "models that diffusers saved: `afresh tune BASE PATH`, `afresh export RUN --to diffusers`",
    ),
    Extra(
        "science",
        ("h5py", "netCDF4", "xarray", "zarr"),
        "physical fields in HDF5, NetCDF and Zarr: `afresh train simulations/`",
    ),
    Extra("payments", ("stripe",), "payment links and notices of Stripe: `afresh catalogue serve`"),
    Extra("recommend", ("implicit",), "iALS, a baseline of recommenders"),
    Extra("series", ("statsforecast",), "AutoETS, AutoTheta and AutoARIMA, baselines of forecasts"),
    Extra("serve", ("fastapi", "uvicorn", "multipart"), "a server of runs and its page: `afresh serve RUN`"),
    Extra(
        "logging",
        ("tensorboard", "trackio", "wandb"),
        "curves and samples in other programs while a model is trained: `afresh train PATH --log tensorboard`",
    ),
)


def require(name: str, what: str) -> None:
    """Raises UserError if packages of an extra are missing, which `what` needs."""
    from afresh.core import UserError

    extra = next(e for e in EXTRAS if e.name == name)
    if missing := extra.missing:
        raise UserError(
            f"{what} needs the extra {name}, and {', '.join(missing)} is not installed: {extra.command}.",
            "extra_missing",
            extra=name,
        )
