"""The learning rate as a function of the step (warm-up, plateau, decay: WSD, Hu et al. 2024, MiniCPM), and the number
of evaluations on held-out examples."""

EVALUATIONS, MAX_EVALUATIONS = 8, 64
MIN_INTERVAL = 15.0  # seconds between two evaluations, so that their cost is small


def rate(step: int, steps: int, warmup: int, decay: float, final: float, since: int = 0, left: float = 1.0) -> float:
    """The factor of the peak rate at `step` of `steps`: it rises linearly over `warmup` steps, is then constant, and
    falls linearly to `final` over the last `decay` share of training. `since` and `left`: as in `share_left`."""
    up = min(1.0, (step + 1) / max(1, warmup))
    return up * min(1.0, final + (1 - final) * left * (steps - step) / max(1.0, decay * (steps - since)))


def share_left(step: int, steps: int, since: int, left: float) -> float:
    """The share of training that is left at `step`, from 1 to 0.

    It was `left` at the step `since`, where the number of steps was last changed to keep a budget in minutes, and
    decreases linearly from there. The learning rate is a function of this share, so it does not jump at a change.
    """
    return left * (steps - step) / max(1, steps - since)


def evaluation_count(seconds: float | None, epochs: float) -> int:
    """The number of evaluations of a run. `seconds`: its budget, or None if the budget is not in minutes.

    The number is EVALUATIONS, or less in a short run, but at least one for each epoch, up to MAX_EVALUATIONS. An
    evaluation costs less than a twentieth of an epoch if a tenth of the data is held out. A model that memorises within
    a few epochs has its lowest held-out loss there, and only weights at evaluations are saved (docs/development/log.md,
    "Residual codes").
    """
    least = EVALUATIONS if seconds is None else max(1, min(EVALUATIONS, int(seconds // MIN_INTERVAL)))
    return max(least, min(MAX_EVALUATIONS, round(epochs)))
