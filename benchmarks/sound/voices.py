"""Whose voice it is, as a vector: Resemblyzer's encoder (Wan et al. 2018, generalised end-to-end loss), an ear of
speakers that never saw the data.

The weights come with the package resemblyzer (Apache-2.0). Its own module is not imported: it needs a detector of voice
activity, whose import fails without pkg_resources, for a cut of silences that clips of one word do not need. Without
that cut, its vectors are these to 3e-7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from afresh.core import Sound

SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
RATE, WINDOW, HOP, MELS, FRAMES = 16_000, 400, 160, 40, 160  # samples a second; samples; bands and frames of one look
WIDTH, LAYERS = 256, 3
LOUDNESS = -30.0  # dB of root mean square below full scale, to which quieter sounds are raised
BATCH = 64


class VoiceNet(nn.Module):
    """Mel powers (B, FRAMES, MELS) to vectors of length 1, (B, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        last = self.lstm(x)[1][0][-1]
        return nn.functional.normalize(self.linear(last).relu(), dim=1)


def voice_net() -> VoiceNet:
    """The network with its weights. Raises RuntimeError when the package is missing or its file is not the one known
    here."""
    found = find_spec("resemblyzer")
    if found is None or found.origin is None:
        raise RuntimeError("resemblyzer is not installed: pip install -e '.[bench]'")
    file = Path(found.origin).parent / "pretrained.pt"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{file} has the SHA-256 {digest}, not {SHA256}: another version of the package")
    tensors = torch.load(file, map_location="cpu", weights_only=True)["model_state"]  # tensors alone: no code is read
    net = VoiceNet()
    net.load_state_dict({k: v for k, v in tensors.items() if k in net.state_dict()})
    return net.eval().requires_grad_(False)


def picture(sound: Sound) -> NDArray[np.float32]:
    """Mel powers (FRAMES, MELS) of its first 1.6 seconds, channels averaged, silence behind a shorter one."""
    from librosa.feature import melspectrogram

    x = soxr.resample(np.ascontiguousarray(sound.samples.mean(1), np.float32), sound.rate, RATE)[: FRAMES * HOP]
    level = float(np.sqrt(np.square(x, dtype=np.float64).mean())) if len(x) else 0.0
    if 0 < level < 10 ** (LOUDNESS / 20):
        x = x * (10 ** (LOUDNESS / 20) / level)
    x = np.pad(x, (0, FRAMES * HOP - len(x)))
    found = melspectrogram(y=x, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS)
    return np.asarray(found.T[:FRAMES], np.float32)


@torch.no_grad()
def voices(net: VoiceNet, sounds: Sequence[Sound]) -> NDArray[np.float64]:
    """(N, WIDTH), each row of length 1."""
    x = torch.from_numpy(np.stack([picture(s) for s in sounds]))
    return torch.cat([net(part) for part in x.split(BATCH)]).double().numpy()
