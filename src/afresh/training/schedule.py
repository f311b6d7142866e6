"""The learning rate as a function of the step: warm-up, plateau, decay (WSD; Hu et al. 2024, MiniCPM)."""


def rate(step: int, steps: int, warmup: int, decay: float, final: float) -> float:
    """Factor on the peak rate at `step` of `steps`: linear up over `warmup` steps, constant, and over the last
    `decay` share of the steps linear down to `final`."""
    up = min(1.0, (step + 1) / max(1, warmup))
    length = max(1.0, decay * steps)
    left = (steps - step) / length
    return up * min(1.0, final + (1 - final) * left)
