"""Decoding beside Hugging Face `generate` and llama.cpp: the same 12M weights, the same prompts, one core.

The weights are random and seeded, in the shape of Qwen3, and written by our own export (hf, gguf). Every contender is
a process of its own with one thread, all on one core; one works while the others wait, in rounds (A B C A B C), so that
the machine's drift hits all. Times hold the prompts and the new tokens, greedily chosen. Ours is the family's `sample`,
as a run of a user calls it; theirs are `generate` and llama.cpp's batches, whose best settings are looked for first.

    python -m benchmarks decoding [--rounds N] [--quick]     --quick: short and once, nothing is saved
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from afresh.core import Cond, Space
from afresh.core.rng import Rng
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.transformer import FAMILY, TransformerConfig, build
from afresh.engine.nets.kernels.decode import Kind
from afresh.engine.sampling.next_token import NextTokenSettings, predictor
from afresh.runs.formats import gguf, huggingface
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.load import load_base
from afresh.runs.formats.parts import Precision
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.results import Row, save

CONTEXT, VOCAB, MLP = 1024, 4096, 1024
CONFIG = TransformerConfig(width=384, layers=6, heads=6, kv_heads=6, mlp=MLP)
PROMPT, LENGTH, BATCH = 32, 256, 32
PLACES = (64, 256, 512, 1000)
BEFORE, SHORT, LONG = 40, 16, 64  # a place's prompt ends 40 before it; the tokens from 24 before to 24 after count
FORMATS: Mapping[str, tuple[Precision, ...]] = {
    "hf": ("float32", "bfloat16"),
    "gguf": ("float32", "bfloat16", "q8_0"),
}
CONTENDERS = {
    **{f"afresh {kind}": ("afresh", kind) for kind in ("float32", "bfloat16", "int8")},
    **{f"transformers {kind}": ("transformers", kind) for kind in ("float32", "bfloat16")},
    **{f"llama.cpp {kind}": ("llama.cpp", kind) for kind in ("float32", "bfloat16", "q8_0")},
}
SAME = (("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "q8_0"))  # ours, llama.cpp's
TITLE = "12M decoder, decoding"
Ids = list[int]

# ---------------------------------------------------------------------------- the model


def make_base() -> Base:
    """Seeded weights so large that every part of the network shows, and its greedy texts are of many tokens.

    The rows of the marks in the head are zero, so that nobody draws `end`: the likeliest of 4,096 others is above.
    """
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefghijklmnop", k=5)) for _ in range(30_000)]
    tokenizer = Tokenizer.learn_bpe([" ".join(words)], VOCAB)
    space = Space("tokens", (CONTEXT,), (tokenizer.size,), dict(tokenizer.special), stream=True)
    torch.manual_seed(0)
    net = build(CONFIG, space, {})["decoder"]
    with torch.no_grad():
        for name, p in net.named_parameters():
            std = 0.5 if "embedding" in name else 1.2 / p.shape[-1] ** 0.5
            torch.nn.init.normal_(p, 1.0, 0.1) if p.dim() == 1 else torch.nn.init.normal_(p, 0.0, std)
        net.get_parameter("head.weight")[list(tokenizer.special.values())] = 0
    weights = {k: v.detach() for k, v in net.state_dict().items()}
    return Base(CONFIG, CONTEXT, weights, tokenizer, "random 12M decoder", tokenizer.special["end"])


def write(base: Base, folder: Path) -> None:
    """hf/PRECISION/ and gguf/PRECISION/model.gguf."""
    for name, precisions in FORMATS.items():
        for precision in precisions:
            place = folder / name / precision
            place.mkdir(parents=True)
            (huggingface if name == "hf" else gguf).write(base, place, precision)


def prompts_of(base: Base, n: int, length: int) -> list[Ids]:
    """Each begins with `end`, as ours does (`sample`), and goes on at random with what is not a mark."""
    marks = set(base.tokenizer.special.values())
    plain = [i for i in range(base.tokenizer.size) if i not in marks]
    rows = random.Random(1)
    return [[base.tokenizer.special["end"], *rows.choices(plain, k=length - 1)] for _ in range(n)]


# ---------------------------------------------------------------------------- the contenders


class Contender(Protocol):
    note: str  # the settings it runs with

    def run(self, prompts: Sequence[Ids], length: int) -> list[Ids]: ...  # the new tokens
    def after(self, ids: Ids, first: int) -> Tensor: ...  # logits after ids[:first], ..., ids; ids fed one by one


class Afresh:
    note = ""

    def __init__(self, folder: Path, kind: str) -> None:
        base = load_base(folder / "hf" / "float32")
        self.space = base.space
        self.config = base.config.model_copy(update={"apart": CONFIG.apart})
        self.modules = {"decoder": decoder_of(base).eval().requires_grad_(False)}
        self.kind = cast(Kind, kind)

    def run(self, prompts: Sequence[Ids], length: int) -> list[Ids]:
        n = len(prompts)
        cond = Cond(n, known=torch.tensor([p[1:] for p in prompts]))
        settings = NextTokenSettings(temperature=0, length=length, weights=self.kind)
        return FAMILY.sampling.sample(
            self.modules, self.config, self.space, cond, Rng(0), torch.arange(n), settings
        ).tolist()

    def after(self, ids: Ids, first: int) -> Tensor:
        predict = predictor(self.modules, CONTEXT + 1, self.kind)
        logits, state = predict(torch.tensor([ids[:first]]), None, Cond(1), None)
        rows = [logits]
        for i in ids[first:]:
            logits, state = predict(torch.tensor([[i]]), None, Cond(1), state)
            rows.append(logits)
        return torch.cat(rows)


class Transformers:
    note = "dynamic cache, sdpa"

    def __init__(self, folder: Path, kind: str) -> None:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        dtype = torch.float32 if kind == "float32" else torch.bfloat16
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder / "hf" / kind, dtype=dtype, local_files_only=True
        ).eval()
        self.model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)

    @torch.inference_mode()
    def run(self, prompts: Sequence[Ids], length: int) -> list[Ids]:
        x = torch.tensor(prompts)
        out = self.model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=length)
        return cast(list[Ids], out[:, x.shape[1] :].tolist())

    @torch.inference_mode()
    def after(self, ids: Ids, first: int) -> Tensor:
        out = self.model(torch.tensor([ids[:first]]), use_cache=True)
        rows = [out.logits[0, -1:]]
        for i in ids[first:]:
            out = self.model(torch.tensor([[i]]), past_key_values=out.past_key_values, use_cache=True)
            rows.append(out.logits[0, -1:])
        return torch.cat(rows).float()


class LlamaCpp:
    """llama_decode on batches that are filled, and logits that are read, through arrays without a copy."""

    def __init__(self, folder: Path, kind: str) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.silent = llama_cpp.llama_log_callback(lambda level, text, user: None)
        llama_cpp.llama_log_set(self.silent, ctypes.c_void_p())
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(folder / "gguf" / kind / gguf.FILE).encode(), params)
        assert self.model
        self.made: dict[int, LlamaContext] = {}
        self.note = ""

    def context(self, prompts: Sequence[Ids], length: int) -> LlamaContext:
        """For as many sequences; the fastest of the settings on a short text, found once."""
        n = len(prompts)
        if n not in self.made:
            found = []
            for flash in (False, True):
                for unified in (False, True) if n > 1 else (True,):
                    context = LlamaContext(self.api, self.model, n, flash, unified)
                    begun = time.perf_counter()
                    context.run(prompts, length)
                    found.append((time.perf_counter() - begun, context))
            self.made[n] = min(found, key=lambda f: f[0])[1]
            for _, context in found:
                if context is not self.made[n]:
                    context.close()
            self.note = "; ".join(f"{k}: {c.note}" for k, c in self.made.items())
        return self.made[n]

    def run(self, prompts: Sequence[Ids], length: int) -> list[Ids]:
        return self.context(prompts, length).run(prompts, length)

    def after(self, ids: Ids, first: int) -> Tensor:
        context = self.context([ids[:first]], 64)
        context.clear()
        rows = [context.feed([ids[:first]], 0).copy()]
        rows += [context.feed([[i]], first + at).copy() for at, i in enumerate(ids[first:])]
        return torch.from_numpy(np.concatenate(rows))


class LlamaContext:
    """n sequences at once. `unified`: all in one cache, or each in its own."""

    def __init__(self, api: Any, model: Any, n: int, flash: bool, unified: bool) -> None:
        params = api.llama_context_default_params()
        params.n_seq_max, params.kv_unified = n, unified
        params.n_ctx = n * (CONTEXT if n == 1 else 320)
        params.n_batch = params.n_ubatch = CONTEXT
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = int(flash)
        self.api, self.ctx = api, api.llama_init_from_model(model, params)
        assert self.ctx
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        self.note = f"flash attention {'on' if flash else 'off'}, {'one cache' if unified else 'a cache for each'}"
        self.batch = api.llama_batch_init(CONTEXT, 0, 1)
        b, size = self.batch, (CONTEXT,)
        self.token, self.pos = np.ctypeslib.as_array(b.token, size), np.ctypeslib.as_array(b.pos, size)
        self.count, self.wanted = np.ctypeslib.as_array(b.n_seq_id, size), np.ctypeslib.as_array(b.logits, size)
        self.seq = [b.seq_id[i] for i in range(CONTEXT)]
        self.count[:] = 1

    def close(self) -> None:
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.ctx)

    def clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.ctx), False)

    def feed(self, rows: Sequence[Ids], place: int) -> Any:
        """Rows of one length, all at `place`; logits (rows, vocab) after the last of each."""
        n, long = len(rows), len(rows[0])
        m = n * long
        assert m <= CONTEXT
        self.token[:m] = np.array(rows).ravel()
        self.pos[:m] = np.tile(np.arange(place, place + long), n)
        self.wanted[:m] = 0
        self.wanted[long - 1 : m : long] = 1
        for i in range(m):
            self.seq[i][0] = i // long
        return self.decode(m, n)

    def decode(self, m: int, n: int) -> Any:
        self.batch.n_tokens = m
        failed = self.api.llama_decode(self.ctx, self.batch)
        assert failed == 0, f"llama_decode returned {failed}"
        return np.ctypeslib.as_array(self.api.llama_get_logits(self.ctx), (n, self.vocab))

    def run(self, prompts: Sequence[Ids], length: int) -> list[Ids]:
        self.clear()
        n, place = len(prompts), len(prompts[0])
        found = [self.feed(prompts, 0).argmax(1)]
        self.wanted[:n] = 1
        for i in range(n):
            self.seq[i][0] = i
        for at in range(place, place + length - 1):
            self.token[:n] = found[-1]
            self.pos[:n] = at
            found.append(self.decode(n, n).argmax(1))
        return cast(list[Ids], np.stack(found, 1).tolist())


class Ceilings:
    """What one core can do at most: bytes read a second, bfloat16 operations a second. `kind` is not used."""

    note = ""

    def __init__(self, folder: Path, kind: str) -> None: ...

    def reading(self, size: int, seconds: float) -> float:
        """Bytes a second of a sum over `size` bytes, again and again."""
        x = torch.ones(size // 4)
        times = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            begun = time.perf_counter()
            x.sum()
            times.append(time.perf_counter() - begun)
        return size / statistics.median(times)

    def products(self, seconds: float) -> float:
        """Operations a second of products of bfloat16 matrices, 1024 on a side."""
        a, b = (torch.randn(1024, 1024).bfloat16() for _ in range(2))
        times = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            begun = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - begun)
        return 2 * 1024**3 / statistics.median(times)


KINDS_OF: Mapping[str, Any] = {
    "afresh": Afresh,
    "transformers": Transformers,
    "llama.cpp": LlamaCpp,
    "ceilings": Ceilings,
}

# ---------------------------------------------------------------------------- processes


def serve(program: str, kind: str, folder: Path) -> None:
    """Answer requests, one JSON line each, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    made = KINDS_OF[program](folder, kind)
    for line in sys.stdin:
        asked = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        value = getattr(made, asked["call"])(*asked["given"])
        seconds, busy = time.perf_counter() - wall, time.process_time() - cpu
        if isinstance(value, Tensor):
            np.save(asked["out"], value.numpy())
            value = None
        print(json.dumps({"value": value, "seconds": seconds, "busy": busy, "note": made.note}), file=answers)
        answers.flush()


@dataclass
class Process:
    """A contender that works when it is asked."""

    name: str
    inner: subprocess.Popen[str]
    folder: Path
    note: str = ""

    def ask(self, call: str, *given: Any) -> tuple[Any, float, float]:
        """(what it returned, seconds, those on the processor)"""
        out = self.folder / "answer.npy"
        assert self.inner.stdin is not None and self.inner.stdout is not None
        self.inner.stdin.write(json.dumps({"call": call, "given": given, "out": str(out)}) + "\n")
        self.inner.stdin.flush()
        line = self.inner.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended: see above")
        answer = json.loads(line)
        self.note = answer["note"]
        value = torch.from_numpy(np.load(out)) if call == "after" else answer["value"]
        return value, answer["seconds"], answer["busy"]


@contextmanager
def process(name: str, program: str, kind: str, folder: Path) -> Iterator[Process]:
    command = [sys.executable, "-m", "benchmarks", "decoding", "--serve", program, kind, str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as inner:
        try:
            yield Process(name, inner, folder)
        finally:
            inner.kill()


def seconds_of(
    processes: Sequence[Process], prompts: Sequence[Ids], length: int, rounds: int
) -> tuple[dict[str, float], dict[str, list[Ids]]]:
    """Median seconds of each, and its tokens, by rounds in which each has its turn; the first round is not counted."""
    times: dict[str, list[float]] = {p.name: [] for p in processes}
    tokens: dict[str, list[Ids]] = {}
    for at in range(rounds + 1):
        for p in processes:
            tokens[p.name], wall, busy = p.ask("run", prompts, length)
            assert [len(t) for t in tokens[p.name]] == [length] * len(prompts), p.name
            if at:
                times[p.name].append(wall)
                show(f"{p.name}: {len(prompts)} x {length} in {wall:.3f} s ({busy:.3f} s busy)")
    return {k: statistics.median(v) for k, v in times.items()}, tokens


def show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Plan:
    rounds: int
    length: int
    places: tuple[int, ...]

    @property
    def n(self) -> str:
        return f"median of {self.rounds} rounds"


def measure(plan: Plan) -> list[Row]:
    """Every row, ceilings first, then whether all say the same, then times."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        base = make_base()
        write(base, folder)
        rows, reading = ceilings(folder, base)
        found = {k: stack.enter_context(process(k, *v, folder)) for k, v in CONTENDERS.items()}
        rows += agreement(base, found, plan)
        rows += one_sequence(base, found, plan, reading)
        rows += many_sequences(base, found, plan)
        rows += places(base, found, plan)
    return rows


def multiplied(base: Base) -> int:
    """Weights that each token is multiplied by."""
    return sum(w.numel() for k, w in base.weights.items() if w.dim() == 2 and k != "embedding.weight")


def ceilings(folder: Path, base: Base) -> tuple[list[Row], float]:
    """What the core can do, and how many bytes it reads a second of as many as the weights in bfloat16 have."""
    size = 2 * multiplied(base)
    with process("ceilings", "ceilings", "", folder) as core:
        far, near = (core.ask("reading", n, 2.0)[0] for n in (1 << 29, size))
        flops = core.ask("products", 2.0)[0]
    show(f"one core reads {far / 1e9:.1f} GB/s of 512 MB, {near / 1e9:.1f} GB/s of {size / 1e6:.0f} MB again and again")
    show(f"one core multiplies bfloat16 matrices at {flops / 1e9:.0f} GFLOP/s")
    read = "ceiling of one core: bytes read a second of an array as large as the weights in bfloat16"
    pair = (f"{near / 1e9:.1f} GB/s", f"{far / 1e9:.1f} GB/s (of 512 MB)")
    product = "ceiling of one core: products of bfloat16 matrices"
    n, goal = "median in 2 s", "(a ceiling)"
    bound = Row(TITLE, product, f"{flops / 1e9:.0f} GFLOP/s", goal=goal, n=n)
    return [Row(TITLE, read, *pair, goal=goal, n=n), bound], near


def agreement(base: Base, found: Mapping[str, Process], plan: Plan) -> list[Row]:
    """Our float32 draws the tokens that transformers draws; our bfloat16 is no further from them than theirs."""
    [prompt] = prompts_of(base, 1, PROMPT)
    theirs = found["transformers float32"].ask("run", [prompt], plan.length)[0][0]
    mine = found["afresh float32"].ask("run", [prompt], plan.length)[0][0]
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    ids = [*prompt, *theirs[:-1]]
    truth = found["transformers float32"].ask("after", ids, PROMPT)[0]
    best = truth.topk(2).values
    margin = float((best[:, 0] - best[:, 1]).min())
    rows = [
        Row(
            TITLE,
            f"greedy tokens in float32, {len(set(theirs))} different ones; smallest margin {margin:.4f} nats",
            f"{same} equal",
            f"{len(theirs)} (transformers, float32)",
            same / len(theirs),
            "all",
            same == len(theirs),
            "1 prompt",
        )
    ]
    errors = {}
    for name, p in found.items():
        errors[name] = (
            float((p.ask("after", ids, PROMPT)[0].log_softmax(-1) - truth.log_softmax(-1)).square().mean()) ** 0.5
        )
        show(f"{name}: root mean square error of log-probabilities {errors[name]:.6f}")
    for mine, theirs in (("bfloat16", "transformers bfloat16"), ("int8", "llama.cpp q8_0")):
        a, b = errors[f"afresh {mine}"], errors[theirs]
        what = f"error of log-probabilities against float32, root mean square in nats, {mine}"
        rows.append(
            Row(
                TITLE,
                what,
                f"{a:.4f}",
                f"{b:.4f} ({theirs})",
                a / b,
                "at most 1.2x",
                a <= 1.2 * b,
                f"{len(truth)} places, fed one by one",
            )
        )
    return rows


def versus(what: str, ours: float, beside: str, theirs: float, goal: float, n: str, note: str = "") -> Row:
    """Rates in tokens a second."""
    shown = f"{theirs:,.0f} ({beside}{'; ' + note if note else ''})"
    ratio = ours / theirs
    return Row(TITLE, what, f"{ours:,.0f}", shown, ratio, f"at least {goal}x", ratio >= goal, n)


def one_sequence(base: Base, found: Mapping[str, Process], plan: Plan, reading: float) -> list[Row]:
    times, _ = seconds_of(list(found.values()), prompts_of(base, 1, PROMPT), plan.length, plan.rounds)
    rate = {k: plan.length / s for k, s in times.items()}
    rows = []
    what = f"tokens a second of one sequence, {PROMPT} + {plan.length} tokens"
    for mine, their in SAME:
        a = f"afresh {mine}"
        if (b := f"transformers {mine}") in found:
            rows.append(versus(f"{what}, {mine}", rate[a], b, rate[b], 5.0, plan.n, found[b].note))
        b = f"llama.cpp {their}"
        rows.append(versus(f"{what}, {mine}", rate[a], b, rate[b], 1.2, plan.n, settings(found[b], 1)))
    read = 2 * multiplied(base) * rate["afresh bfloat16"]
    what = "weights read a second for one sequence, bfloat16, beside a sum over as many bytes"
    rows.append(
        Row(
            TITLE,
            what,
            f"{read / 1e9:.1f} GB/s",
            f"{reading / 1e9:.1f} GB/s",
            read / reading,
            "at least 0.5x",
            read >= 0.5 * reading,
            plan.n,
        )
    )
    return rows


def settings(p: Process, n: int) -> str:
    """With which it runs n sequences."""
    return next((s.split(": ")[1] for s in p.note.split("; ") if s.startswith(f"{n}: ")), p.note)


def many_sequences(base: Base, found: Mapping[str, Process], plan: Plan) -> list[Row]:
    names = [f"{program} bfloat16" for program in ("afresh", "transformers", "llama.cpp")]
    times, _ = seconds_of([found[k] for k in names], prompts_of(base, BATCH, PROMPT), plan.length, plan.rounds)
    rate = {k: BATCH * plan.length / s for k, s in times.items()}
    what = f"tokens a second of {BATCH} sequences at once, {PROMPT} + {plan.length} tokens each, bfloat16"
    return [
        versus(what, rate[names[0]], b, rate[b], goal, plan.n, settings(found[b], BATCH))
        for b, goal in zip(names[1:], (4.0, 6.0), strict=True)
    ]


def places(base: Base, found: Mapping[str, Process], plan: Plan) -> list[Row]:
    """The cost of a token at a place: by the difference of a long and a short continuation of one prompt."""
    rows = []
    a, b = "afresh bfloat16", "llama.cpp bfloat16"
    pair = [found[a], found[b]]
    for place in plan.places:
        prompts = prompts_of(base, 1, place - BEFORE)
        short, _ = seconds_of(pair, prompts, SHORT, plan.rounds)
        long, _ = seconds_of(pair, prompts, LONG, plan.rounds)
        rate = {k: (LONG - SHORT) / (long[k] - short[k]) for k in short}
        rows.append(versus(f"tokens a second at place {place}, bfloat16", rate[a], b, rate[b], 1.2, plan.n))
    return rows


def main(*given: str) -> None:
    parser = parser_of("decoding", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short and once; nothing is saved")
    parser.add_argument("--serve", nargs=3, metavar=("PROGRAM", "KIND", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args(given)
    if asked.serve:
        serve(asked.serve[0], asked.serve[1], Path(asked.serve[2]))
        return
    if asked.rounds < 1:
        parser.error(f"--rounds must be at least 1. Given: {asked.rounds}")
    plan = Plan(1, 64, PLACES[:2]) if asked.quick else Plan(asked.rounds, LENGTH, PLACES)
    rows = measure(plan)
    for r in rows:
        ratio = "" if r.ratio is None else f"{r.ratio:.2f}"
        print(f"{r.what}: {r.ours} beside {r.theirs}; {ratio} ({r.goal}: {'yes' if r.reached else 'no'})", flush=True)
    if not asked.quick:
        save("decoding", rows)


BENCHMARKS = (Benchmark("decoding", (), 10, main),)
