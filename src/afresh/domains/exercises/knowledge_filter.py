"""What practice teaches, beside a run on answers: a filter of what is known, and how much its word counts beside the
network's.

The network tells well whether an answer will be right, and badly what an answer changes: that is the small difference
of two of its chances. The filter (afresh.domains.exercises.knowledge.learning) has what an answer teaches among its
parameters. Both together tell an answer better than each: the log-odds are a weighted sum of theirs, with the weights
under which held-out answers are likeliest (a logistic opinion pool; Bordley 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Item, UserError, events
from afresh.core.rng import Rng
from afresh.data.load import rows_at_once, sweep
from afresh.data.storage.files import replace_file
from afresh.data.storage.tensor_file import read_tensors
from afresh.domains.exercises.encoder import AnswerEncoder
from afresh.domains.exercises.history import FIRST, Answer, AnswerHistory, typical
from afresh.domains.exercises.knowledge.answers import DAY, Answers, as_answers
from afresh.domains.exercises.knowledge.learning import MOST_SKILLS, Belief, Learning, ahead, fit, gain, padded
from afresh.engine.training.network import precision
from afresh.runs.data import known_data
from afresh.runs.run import Run

Array = NDArray[np.float64]
FILE = "practise/learning.safetensors"  # beside the run
HELD = 200  # held-out learners to whose answers the weights are fitted
LEAST = 200  # of their answers, below which the network's word alone counts, with odds that are moved towards even ones
SPREAD = 0.5  # by how much, as a standard deviation before any answer is seen
FEWEST = 20  # of their answers, below which these are not moved either
EPS = 1e-6


class Teaching:
    """The filter under the names of a run, and `weights`: of the network's log-odds, of its own, and a constant.
    `checked`: the held-out answers to which they are fitted, the calibration error and the log loss of the chances."""

    def __init__(
        self, encoder: AnswerEncoder, learning: Learning, weights: Tensor, checked: Sequence[float] = ()
    ) -> None:
        self.learning, self.weights, self.checked = learning, weights, checked
        self.names = names_of(encoder)
        self.last: tuple[list[tuple[Answer, ...]], Belief | None] = [], None

    def answers(self, histories: Sequence[AnswerHistory]) -> list[Answers]:
        return [as_answers(h, *self.names) for h in histories]

    @torch.no_grad()
    def belief(self, histories: Sequence[AnswerHistory], gap: int) -> Belief:
        """What is held of the learners at a gap after their last answers. It goes on from what was held of the last
        histories that were asked for, if these begin with them."""
        told = [h.answers for h in histories]
        past, belief = self.last
        if len(past) != len(told) or any(t[: len(p)] != p for t, p in zip(told, past, strict=True)):
            past, belief = [()] * len(told), None
        more = [a.part(len(p)) for a, p in zip(self.answers(histories), past, strict=True)]
        belief = self.learning(padded(more, self.learning), belief)[1]
        self.last = told, belief
        days = 0.0 if gap == FIRST else typical(gap) / DAY
        return self.learning.wait(belief, torch.full((len(told),), days))

    @torch.no_grad()
    def together(self, network: Array, histories: Sequence[AnswerHistory], items: Sequence[int], gap: int) -> Array:
        """The chance of a right answer to each of some exercises by both, from that by the network, (B, items)."""
        if not self.weights[1]:
            return network if self.weights[0] == 1 else pooled(network, network, self.weights)
        known, right, wrong = self.states(histories, items, gap)
        return pooled(network, known * right + (1 - known) * wrong, self.weights)

    @torch.no_grad()
    def doubt(self, network: Array, histories: Sequence[AnswerHistory], items: Sequence[int], gap: int) -> Array:
        """The variance of the chance of a right answer to each of some exercises, (B, items): it is one chance if their
        skill is known and another if it is not, and the filter tells how likely each is."""
        if not self.weights[1]:
            return np.zeros_like(network)
        known, right, wrong = self.states(histories, items, gap)
        apart = pooled(network, right, self.weights) - pooled(network, wrong, self.weights)
        out: Array = known * (1 - known) * apart**2
        return out

    def states(self, histories: Sequence[AnswerHistory], items: Sequence[int], gap: int) -> tuple[Array, Array, Array]:
        """For each of some exercises, (B, items) each: the chance that its skill is known, and the chances of a right
        answer if it is and if it is not."""
        belief, at = self.belief(histories, gap), torch.tensor(items)
        known = belief.mean()[:, self.learning.place[at]].double().numpy()
        right, wrong = 1 - self.learning.slip[at].sigmoid(), self.learning.guess[at].sigmoid()
        both = [np.broadcast_to(x.double().numpy(), known.shape) for x in (right, wrong)]
        return known, both[0], both[1]

    def known(self, histories: Sequence[AnswerHistory], gap: int) -> Array:
        """What is known of all skills at a gap after the last answers, (B,), in the units of `gains`."""
        belief = self.belief(histories, gap)
        out: Array = ahead(self.learning, belief, 0)[:, 0].double().numpy()
        return out

    def gains(self, histories: Sequence[AnswerHistory], skills: Sequence[int], gap: int) -> tuple[Array, Array]:
        """Of each skill: what one answer to it is expected to add to the mean chance of a right answer, and that chance
        after some answers of which it is the first, (B, skills) each."""
        belief = self.belief(histories, gap)
        both = gain(self.learning, belief), ahead(self.learning, belief)
        one, later = (x[:, torch.tensor(skills)].double().numpy() for x in both)
        return one, later


def names_of(encoder: AnswerEncoder) -> tuple[dict[str, int], dict[str, int]]:
    """The places of the exercises and skills of a run; without skills, each exercise is one."""
    items = {name: i for i, name in enumerate(encoder.items)}
    return items, {name: i for i, name in enumerate(encoder.skills)} if encoder.skills else items


def pooled(network: Array, learning: Array, weights: Tensor) -> Array:
    """Two chances as one."""
    a, b, c = weights.tolist()
    odds = [np.log(p) - np.log1p(-p) for p in (np.clip(x, EPS, 1 - EPS) for x in (network, learning))]
    out: Array = 1 / (1 + np.exp(-(a * odds[0] + b * odds[1] + c)))
    return out


def filterable(run: Run) -> bool:
    """Whether a run has a filter: not if its data has more skills than the filter compares, or if it was aligned, which
    moved it away from its data."""
    encoder = run.encoder
    assert isinstance(encoder, AnswerEncoder)
    return len(names_of(encoder)[1]) <= MOST_SKILLS and run.record.align is None


def must_fit(run: Run) -> bool:
    """Whether the filter of a run is still to be fitted, which takes up to a minute."""
    return filterable(run) and not (run.path / FILE).is_file()


def teaching_of(run: Run) -> Teaching | None:
    """That of a run: fitted the first time, to the run's data, and kept beside it. None if the data is not there, or if
    the run can have none."""
    encoder = run.encoder
    assert isinstance(encoder, AnswerEncoder)
    items, skills = names_of(encoder)
    if not filterable(run):
        return None
    place = list(encoder.skill_of) if encoder.skills else list(range(len(items)))
    file = run.path / FILE
    if file.is_file():
        tensors = read_tensors(file)
        learning = Learning(place, len(skills))
        try:
            weights, checked = tensors.pop("weights"), tensors.pop("checked", torch.zeros(0)).tolist()
            learning.load_state_dict(tensors)
        except (KeyError, RuntimeError):
            raise UserError(f"{file} is damaged. Remove it; it is made again.", "damaged") from None
        return Teaching(encoder, learning.requires_grad_(False), weights, checked)
    data = known_data(run)
    if data is None:
        return None
    events.progress("what practice teaches is fitted to the answers of training")
    train = [as_answers(i.value, items, skills) for i in data.train_items]
    found = Teaching(encoder, fit(train, place, len(skills)), torch.tensor([1.0, 0.0, 0.0]))
    found.weights, found.checked = weights_of(run, found, data.heldout_items[:HELD])
    with suppress(OSError):
        from safetensors.torch import save

        (run.path / FILE).parent.mkdir(exist_ok=True)
        kept_tensors = {k: v.contiguous() for k, v in found.learning.state_dict().items()}
        kept_tensors |= {"weights": found.weights, "checked": torch.tensor(found.checked)}
        replace_file(run.path / FILE, save(kept_tensors))
    return found


def foreseen(run: Run, items: Sequence[Item]) -> Array | None:
    """The network's chance of a right answer, of each counted answer of some histories in their order. None if the
    family does not tell it."""
    likelihood = run.family.likelihood
    if likelihood is None or likelihood.tokens is None:
        return None
    encoded = run.encoder.encode(items)
    nats = []
    with torch.no_grad(), precision(run.train):
        for batch in sweep(encoded, run.space, rows_at_once(encoded, run.space, 32)):
            found = likelihood.tokens(run.modules, run.config, run.space, batch.to(run.train.device), Rng(0)).cpu()
            nats.append(found[batch.mask])
    p = torch.cat(nats).exp().double().numpy()
    right = np.concatenate([[a.correct for a in i.value.answers[i.value.known :]] for i in items])
    out: Array = np.where(right, p, 1 - p)
    return out


def weights_of(run: Run, teaching: Teaching, heldout: Sequence[Item]) -> tuple[Tensor, Sequence[float]]:
    """The weights under which the held-out answers are likeliest, by L-BFGS, as the likelihood is concave in them; and
    the number of these answers, the calibration error and the log loss of the weighted chances. Of few answers only the
    network's weight is fitted, to at most 1 (a temperature; Guo et al. 2017), and of hardly any none."""
    network = foreseen(run, heldout) if heldout else None
    if network is None or len(network) < FEWEST:
        return torch.tensor([1.0, 0.0, 0.0]), ()
    few = len(network) < LEAST
    answers = teaching.answers([i.value for i in heldout])
    chances = teaching.learning(padded(answers, teaching.learning))[0].double().numpy()
    learning = np.concatenate([c[: len(a)][a.counted] for c, a in zip(chances, answers, strict=True)])
    right = torch.tensor(np.concatenate([a.right[a.counted] for a in answers])).double()
    odds = torch.stack([torch.logit(torch.tensor(p), EPS) for p in (network, learning)])
    weights = torch.tensor([0.5, 0.0 if few else 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    fitted = torch.tensor([1.0, 0.0, 0.0] if few else [1.0, 1.0, 1.0], dtype=torch.float64)
    solver = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        own = weights * fitted
        loss = torch.nn.functional.binary_cross_entropy_with_logits((own[:2, None] * odds).sum(0) + own[2], right)
        if few:  # a normal prior of the weight, around 1
            loss = loss + 0.5 * ((weights[0] - 1) / SPREAD) ** 2 / len(right)
        loss.backward()
        return loss

    solver.step(closure)
    found = weights.detach().float() if bool(weights.isfinite().all()) else torch.tensor([1.0, 0.0, 0.0])
    if few:
        found = torch.tensor([float(found[0].clamp(0.1, 1)), 0.0, 0.0])  # at least 0.1: the order stays
    from afresh.domains.exercises.metrics import calibration_error, log_loss

    both, outcomes = pooled(network, learning, found), right.bool().numpy()
    return found, (float(len(both)), calibration_error(outcomes, both), log_loss(outcomes, both))
