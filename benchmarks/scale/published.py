"""What others have measured and published of GPUs and of the links between them, with where it stands."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
PEAK = 989e12  # FLOP/s of an H100 SXM in bfloat16 without sparsity, of NVIDIA's data sheet


@dataclass(frozen=True)
class Source:
    title: str
    address: str


DATA_SHEET = Source("NVIDIA H100 data sheet", "https://www.nvidia.com/en-us/data-center/h100/")
BENCH = Source(
    "stas00/ml-engineering, network/benchmarks/README.md: all-reduce of 8 H200 on one node, NCCL 2.30.7",
    "https://github.com/stas00/ml-engineering/blob/master/network/benchmarks/README.md",
)
SHARP = Source(
    "stas00/ml-engineering, network/README.md: the same node without reduction in the switch",
    "https://github.com/stas00/ml-engineering/blob/master/network/README.md",
)
NEBIUS = Source(
    "drmysore/nebius-h100-16gpu-benchmark: all-reduce of 16 H100 on two nodes with InfiniBand, NCCL 2.20.5",
    "https://github.com/drmysore/nebius-h100-16gpu-benchmark",
)
PER_NIC = Source(
    "NVIDIA/nccl-tests, issue 290, a maintainer: 46 to 48 GB/s for each NIC of 400 Gb/s (NDR)",
    "https://github.com/NVIDIA/nccl-tests/issues/290",
)
TWO_NODES = Source(
    "NVIDIA/nccl, issue 1244: 47 us for the smallest all-reduce of 16 H20 on two nodes with InfiniBand NDR",
    "https://github.com/NVIDIA/nccl/issues/1244",
)
LARGE = Source(
    "NVIDIA/nccl-tests, issue 283: bus bandwidth of about 350 GB/s at 512 MiB on 248 nodes of 8 H200",
    "https://github.com/NVIDIA/nccl-tests/issues/283",
)
TORCHTITAN = Source(
    "pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md",
    "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md",
)
TRAINY = Source(
    "pytorch/torchtitan, benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md",
    "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md",
)
DDP = Source("Li et al. 2020, PyTorch Distributed (buckets of 25 MB)", "https://arxiv.org/abs/2006.15704")
TREES = Source("Sanders, Speck and Träff 2009, two-tree algorithms", "https://doi.org/10.1016/j.parco.2009.09.001")
PATARASUK = Source(
    "Patarasuk and Yuan 2009, bandwidth optimal all-reduce", "https://doi.org/10.1016/j.jpdc.2008.09.002"
)
SOURCES = (
    DATA_SHEET,
    BENCH,
    SHARP,
    NEBIUS,
    PER_NIC,
    TWO_NODES,
    LARGE,
    TORCHTITAN,
    TRAINY,
    DDP,
    TREES,
    PATARASUK,
)

# BENCH, column "default": bytes -> bus bandwidth in GB/s, which is 2 (n - 1) / n bytes over the seconds, of 8 GPUs.
NVLINK = {
    32 << 10: 3.15,
    64 << 10: 6.16,
    128 << 10: 12.46,
    256 << 10: 24.68,
    512 << 10: 48.15,
    1 * MIB: 74.57,
    2 * MIB: 96.26,
    4 * MIB: 145.14,
    8 * MIB: 196.56,
    16 * MIB: 255.90,
    32 * MIB: 301.25,
    64 * MIB: 368.86,
    128 * MIB: 414.54,
    256 * MIB: 441.87,
    512 * MIB: 456.23,
    1024 * MIB: 465.91,
    2048 * MIB: 471.06,
    4096 * MIB: 474.13,
    8192 * MIB: 478.24,
    16384 * MIB: 482.25,
}
INFINIBAND = {1 * MIB: 0.088e-3, 10 * MIB: 0.157e-3, 100 * MIB: 0.647e-3, 1000 * MIB: 4.520e-3}  # NEBIUS: seconds
NIC = 47e9  # PER_NIC, bytes a second for each GPU
SMALLEST_TWO_NODES = 47e-6  # TWO_NODES, seconds
LARGE_NODES, LARGE_BYTES, LARGE_BUS = 248, 512 * MIB, 350e9  # LARGE


@dataclass(frozen=True)
class Trained:
    """Llama 3.1 8B trained with FSDP by torchtitan: tokens a second of each GPU."""

    gpus: int
    how: str
    rate: float
    source: Source


TITAN = (
    Trained(8, "FSDP, H100", 5_762, TORCHTITAN),
    Trained(128, "FSDP, H100", 5_605, TORCHTITAN),
    Trained(8, "FSDP, compiled, H100", 6_667, TORCHTITAN),
    Trained(128, "FSDP, compiled, H100", 6_514, TORCHTITAN),
    Trained(8, "FSDP, compiled, Float8, H100", 8_532, TORCHTITAN),
    Trained(128, "FSDP, compiled, Float8, H100", 8_380, TORCHTITAN),
    Trained(32, "FSDP, compiled, Float8, H200", 10_938, TRAINY),
    Trained(64, "FSDP, compiled, Float8, H200", 10_753, TRAINY),
)
TITAN_PARAMETERS = 8.03e9
TITAN_TOKENS = 2 * 8_192  # of each GPU in a step: a local batch of 2
TITAN_SHARE = 0.39  # of the peak that its model reached on 8 or 128 H100, compiled and without Float8
