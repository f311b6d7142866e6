"""docs/results/scaling.md: the model of communication, what it was fitted to, and what it predicts."""

from __future__ import annotations

from benchmarks.common.results_page import markdown
from benchmarks.scale import gloo
from benchmarks.scale import published as p
from benchmarks.scale.model import (
    NODE,
    WAYS,
    Cluster,
    Fit,
    Link,
    Network,
    efficiency,
    exchanged_bytes,
    fit,
    memory,
    sent,
)

COUNTS = (8, 64, 1_024)
TOKENS = p.TITAN_TOKENS
NETWORKS = (Network("12M", 12e6, TOKENS), Network("300M", 300e6, TOKENS), Network("7B", 7e9, TOKENS))
SPEED = p.TITAN_SHARE * p.PEAK
GPU_MEMORY = 80e9

INTRO = """# How training scales with processes

Made by `make docs` from `benchmarks/scale`; not edited by hand.

**Nothing on this page was run on a GPU, or on more than one machine.** What afresh measured is two processes of one
machine with two cores. The rest is a model, fitted to that and to what others have published of NVLink and InfiniBand;
its predictions are arithmetic, and what it leaves out is listed below. Where others have measured what it predicts,
both numbers stand beside each other."""

MODEL = """## The model

A sum of S bytes over p processes, around a ring or up and down two trees [S5, S6]:

- ring: 2 (p - 1) latency + 2 (p - 1) / p S / rate;
- tree: 2 log2(p) latency + 2 S / rate.

GPUs stand in nodes of eight. What they sum goes through three phases that overlap: each GPU gets an eighth of the sum
of its node, these eighths are summed between nodes by the eight network interfaces at once, and are gathered within the
node. So a sum takes the latency of a node, that of the hops between nodes, and the longer of the time within nodes and
the time between them. The faster of ring and tree is taken.

What a step exchanges, in three ways:

- **sum**: what afresh does. Gradients are summed in float32 after the backward pass, and nothing hides that.
- **overlapped sum**: sums of 25 MB start during the backward pass, as DistributedDataParallel does [S7]. All but the
  last one hide behind the backward pass, which is two thirds of the work. afresh does not do this.
- **FSDP**: the network is divided; weights are gathered in bfloat16 for the forward and for the backward pass, and
  gradients summed in float32 to where they belong. All but the first layer's gather hides behind the work."""

ASSUMPTIONS = f"""## Assumptions

- One GPU computes {SPEED / 1e12:.0f} TFLOP/s, {p.TITAN_SHARE:.0%} of the {p.PEAK / 1e12:.0f} of an H100 [S1], as
  torchtitan reached with a network of 8B [S8]. Small networks reach less; their steps are then longer, and a larger
  part of them hides or outweighs the exchange, so that this errs against small networks.
- Each GPU has {TOKENS:,} tokens a step, as there; the batch grows with the number of GPUs. A step is 6 FLOP for each
  parameter and token; attention is left out.
- Each GPU has an interface of 400 Gb/s, which carries {p.NIC / 1e9:.0f} GB/s [S4]. No other job uses the network, and
  no switch is narrower than what is below it.
- A network that is gathered layer by layer has 32 layers of the same size.
- **Left out**: that some process is always the slowest (waiting grows with their number), reading data, saving,
  evaluation, the optimizer's step, and memory beyond 16 bytes for each parameter."""


def cluster() -> tuple[Cluster, Fit]:
    """Nodes and their network from what is published, and the fit within a node."""
    inside = fit({size: sent("ring", NODE) * size / (rate * 1e9) for size, rate in p.NVLINK.items()})
    hop = (p.SMALLEST_TWO_NODES - inside.latency) / 2  # there and back between two nodes
    return Cluster(Link(inside.latency, sent("ring", NODE) * inside.rate), Link(hop, p.NIC)), inside


def size_words(size: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def gloo_part() -> str:
    known, measured = gloo.known(), gloo.seconds()
    line = fit(measured)
    rows = [
        (
            size_words(size),
            duration(took),
            f"{size / took / 1e6:,.0f}",
            duration(line.latency + size / line.rate),
        )
        for size, took in measured.items()
    ]
    return "\n\n".join(
        [
            "## Measured here: two processes, gloo",
            f"{known['machine']}, {known['when']}; two processes of one thread. Other work ran on the machine (load "
            f"{known['load']} on two cores when it ended), so these are upper bounds.\nThe line is "
            f"{duration(line.latency)} + bytes / {line.rate / 1e6:,.0f} MB/s; its error is {line.median_error:.0%} in "
            f"the median and {line.largest_error:.0%} at most.",
            markdown(("Sum of", "measured", "MB/s", "line"), rows),
        ]
    )


def links_part(known: Cluster, inside: Fit) -> str:
    whole = 2 * (NODE * p.LARGE_NODES - 1) / (NODE * p.LARGE_NODES) * p.LARGE_BYTES / p.LARGE_BUS
    rows = [
        (f"16 H100, two nodes, {size_words(size)}", duration(took), duration(known.all_reduce(size, 16)), "[S3]")
        for size, took in p.INFINIBAND.items()
    ]
    gpus = NODE * p.LARGE_NODES
    rows.append(
        (
            f"{gpus:,} H200, {p.LARGE_NODES} nodes, {size_words(p.LARGE_BYTES)}",
            duration(whole),
            duration(known.all_reduce(p.LARGE_BYTES, gpus)),
            "[S9]",
        )
    )
    fitted = (
        f"Within a node, fitted to 20 sizes of 32 KiB to 16 GiB on eight H200 [S2]: {inside.latency * 1e6:.0f} us, and "
        f"{known.node.rate / 1e9:.0f} GB/s for each GPU as a ring counts them; the error of that line is "
        f"{inside.median_error:.0%} in the median and {inside.largest_error:.0%} at most. Large sums reach 482 GB/s, "
        "as the switch adds up; without that the same node reaches 368 [S12].\nBetween nodes, not fitted but taken: "
        f"{p.NIC / 1e9:.0f} GB/s for each interface of InfiniBand NDR [S4], and {known.net.latency * 1e6:.0f} us for a "
        f"hop, so that the smallest sum of two nodes takes the {p.SMALLEST_TWO_NODES * 1e6:.0f} us that were measured "
        "[S10].\nWhat the model did not see, and predicts:"
    )
    head = ("All-reduce", "measured by others", "model", "source")
    return "\n\n".join(["## Published: NVLink and InfiniBand", fitted, markdown(head, rows)])


def sums_part(known: Cluster) -> str:
    rows = [
        (
            f"{n.name}, {size_words(4 * n.parameters)}",
            *(
                f"{duration(known.all_reduce(4 * n.parameters, g, 'ring'))}, "
                f"{duration(known.all_reduce(4 * n.parameters, g, 'tree'))}"
                for g in COUNTS
            ),
        )
        for n in NETWORKS
    ]
    head = ("Gradients", *(f"{g:,} GPUs: ring, tree" for g in COUNTS))
    return "\n\n".join(["## Predicted: one sum of all gradients", markdown(head, rows)])


def steps_part(known: Cluster) -> str:
    rows = []
    for n in NETWORKS:
        for way in WAYS:
            fits = memory(n, 1, way) <= GPU_MEMORY or way == "FSDP"
            cells = []
            for g in COUNTS:
                share = efficiency(n, g, way, known, SPEED)
                rate = share * SPEED / (6 * n.parameters)
                cells.append(f"{share:.1%}, {rate:,.0f}" if fits else f"({share:.1%})")
            rows.append((n.name, way, size_words(exchanged_bytes(n, max(COUNTS), way)), *cells))
    head = ("Network", "way", "each sends in a step", *(f"{g:,} GPUs" for g in COUNTS))
    about = (
        "The share of the speed of single GPUs, and tokens a second of each GPU. In brackets: the network does not "
        f"fit, as 16 bytes for each of 7B parameters are {size_words(memory(NETWORKS[-1], 1, 'sum'))}, and a GPU has "
        f"{size_words(GPU_MEMORY)}."
    )
    return "\n\n".join(["## Predicted: a step", about, markdown(head, rows)])


def beside_part(known: Cluster) -> str:
    """What torchtitan published, and what the model says of the same."""
    network = Network("8B", p.TITAN_PARAMETERS, p.TITAN_TOKENS)
    rows = []
    for t in p.TITAN:
        first = next(o for o in p.TITAN if o.how == t.how)
        speed = first.rate * 6 * network.parameters  # what its smallest number of GPUs reaches is taken as given
        at = [efficiency(network, g, "FSDP", known, speed) for g in (first.gpus, t.gpus)]
        model = "" if t is first else f"{at[1] / at[0]:.1%}"
        measured = "" if t is first else f"{t.rate / first.rate:.1%} of {first.gpus} GPUs"
        source = "[S8]" if t.source is p.TORCHTITAN else "[S11]"
        rows.append((t.how, f"{t.gpus}", f"{t.rate:,.0f}", measured, model, source))
    own = Network("7B", 7e9, TOKENS)
    predicted = SPEED / (6 * own.parameters) * efficiency(own, 64, "FSDP", known, SPEED)
    about = (
        "torchtitan trains Llama 3.1 8B with FSDP on hosts of eight GPUs with 400 Gb/s for each: tokens a second of "
        f"each GPU. Predicted above for 7B and FSDP on 64 GPUs: {predicted:,.0f}. The model says that the whole "
        "exchange hides behind the work; the 2% that do not are the waiting that it leaves out. Float8 is faster than "
        "the assumption; afresh does not have it."
    )
    head = ("torchtitan", "GPUs", "tokens/s of each", "measured", "model", "source")
    return "\n\n".join(["## Beside: torchtitan", about, markdown(head, rows)])


def sources_part() -> str:
    numbered = {
        "S1": p.DATA_SHEET,
        "S2": p.BENCH,
        "S3": p.NEBIUS,
        "S4": p.PER_NIC,
        "S5": p.PATARASUK,
        "S6": p.TREES,
        "S7": p.DDP,
        "S8": p.TORCHTITAN,
        "S9": p.LARGE,
        "S10": p.TWO_NODES,
        "S11": p.TRAINY,
        "S12": p.SHARP,
    }
    assert set(numbered.values()) == set(p.SOURCES)
    return "\n".join(["## Sources", "", *(f"- {key}: [{s.title}]({s.address})" for key, s in numbered.items())])


def page() -> str:
    known, inside = cluster()
    parts = [
        INTRO,
        MODEL,
        ASSUMPTIONS,
        steps_part(known),
        sums_part(known),
        beside_part(known),
        links_part(known, inside),
        gloo_part(),
        sources_part(),
    ]
    return "\n\n".join(parts) + "\n"
