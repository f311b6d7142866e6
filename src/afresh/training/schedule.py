"""The learning rate as a function of the step: warm-up, plateau, decay (WSD; Hu et al. 2024, MiniCPM); and how often a
run looks at held-out examples."""

LOOKS, MOST_LOOKS = 8, 64
APART = 15.0  # seconds between two looks, at least, so that they cost little


def rate(step: int, steps: int, warmup: int, decay: float, final: float) -> float:
    """Factor on the peak rate at `step` of `steps`: linear up over `warmup` steps, constant, and over the last
    `decay` share of the steps linear down to `final`."""
    up = min(1.0, (step + 1) / max(1, warmup))
    length = max(1.0, decay * steps)
    left = (steps - step) / length
    return up * min(1.0, final + (1 - final) * left)


def looks(seconds: float | None, epochs: float) -> int:
    """Evaluations of a run: LOOKS, or fewer in a short one; and one for each of `epochs`, whatever they cost (less than
    a twentieth of an epoch's training, where a tenth is held out), up to MOST_LOOKS.

    What is learnt by heart in a few epochs has its lowest held-out loss there, and only weights of a look are kept
    (docs/development/log.md, "Residual codes").
    """
    least = LOOKS if seconds is None else max(1, min(LOOKS, int(seconds // APART)))
    return max(least, min(MOST_LOOKS, round(epochs)))
