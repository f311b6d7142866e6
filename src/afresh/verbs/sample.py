"""The sampler of a run, optionally under a control that needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from afresh.core import Cond, Space, UserError, events
from afresh.core.cost import check_cost
from afresh.core.solver_progress import reporting
from afresh.engine.alignment.best_of_n import Rows, best_line, best_of, check_best
from afresh.engine.alignment.rewards.reward import Reward, scorer_of
from afresh.engine.sampling.request import Request, check_negative, contains_prompts, writes_text
from afresh.engine.sampling.samples import Samples
from afresh.runs.run import Run, join
from afresh.runs.works import hooks_of, settings_of_works

if TYPE_CHECKING:
    from afresh.engine.alignment.rewards.reward_factory import Wanted
    from afresh.engine.sampling.text_stream import TextCallback, Watcher


@dataclass(frozen=True)
class Control:
    """Controls of sampling in addition to the request. All controls that are set apply together.

    `best_of`: the number of candidates for each sample; the one with the highest `reward` is returned.
    `reward_guidance`: a reward whose gradient guides each sample, `weight` times (1 by default). `adapters`: {path:
    weight} of adapters that were made from the run. `valid`: whether samples that are not valid are drawn again.
    Rewards are words, or functions of decoded items.
    """

    best_of: int = 1
    reward: Wanted | None = None
    reward_guidance: Wanted | None = None
    weight: float | None = None
    adapters: Mapping[str, float] = field(default_factory=dict)
    valid: bool = False

    def check(self) -> None:
        """Raises UserError if a control is set without another one that it needs."""
        check_best(self.best_of)
        if self.best_of > 1 and self.reward is None:
            raise UserError(
                f"`best_of={self.best_of}` requires a reward to choose by. Add `reward=REWARD`, as in "
                "`reward='length:min=50'`."
            )
        if self.best_of > 1 and self.valid:
            raise UserError("Give `best_of` or `valid`, not both: a reward can give invalid samples its lowest value.")
        if self.reward is not None and self.best_of == 1:
            raise UserError(
                "`reward` chooses among several candidates: give their number, as in `best_of=8`. To follow the "
                "gradient of a reward, use `reward_guidance`; to train on it, `model.align()`."
            )
        if self.weight is not None and self.reward_guidance is None:
            raise UserError("`weight` is the strength of `reward_guidance=REWARD`. Give both, or leave it out.")


PLAIN = Control()


class Sampler:
    """Draws n samples of one request when called. Invalid requests are refused when it is constructed.

    `given`: settings of the family; `on_text` is called with each new piece of the text. Raises UserError as
    `Model.sample`.
    """

    def __init__(
        self,
        run: Run,
        n: int,
        request: Request,
        seed: int,
        given: Mapping[str, Any],
        on_text: TextCallback | None = None,
        control: Control = PLAIN,
    ) -> None:
        self.run, self.request, self.seed, self.given = run, request, seed, given
        self.on_text, self.control = on_text, control
        control.check()
        if request.infill is not None and "length" in given:
            raise UserError("`infill` determines the length of its holes: [[N]] is N tokens. Leave `length` out.")
        if (control.best_of > 1 or control.valid) and on_text is not None:
            raise UserError(
                "A text cannot be streamed and chosen among several: give `stream=True`, or `best_of` or `valid`."
            )
        self.arrangement = run.result_settings(given)
        settings = self.settings(self.watcher())
        count, each = n * control.best_of, run.family.evaluations.sample(run.space, settings)
        check_cost(count * each, f"{count:,} samples of {each:,} evaluations each")
        self.cond, self.described, notes = run.condition(n, request, seed)
        check_negative(request, settings)
        self.hooks = hooks_of(run)
        self.modules: Mapping[str, nn.Module] | None = None
        self.reward: Reward | None = None
        self.guide: Reward | None = None
        self.sampler = run.family.sampling.sample
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise
        for text in notes:
            events.warning(text)

    def prepare(self) -> None:
        """Load the rewards and adapters of the control."""
        run, control = self.run, self.control
        if control.reward_guidance is not None or control.reward is not None:
            # Only then: rewards import scikit-learn, which takes half a second.
            from afresh.engine.alignment.rewards.reward_factory import reward_of
        if control.reward_guidance is not None:
            from afresh.engine.alignment.reward_guidance import check_family, steered

            check_family(run)  # before building the reward, which can take a while
            self.guide = reward_of(run, control.reward_guidance)
            self.sampler = steered(run, self.guide, 1.0 if control.weight is None else control.weight)
        if control.reward is not None:
            self.reward = reward_of(run, control.reward)
        if control.adapters:
            from afresh.runs.adapters import with_adapters

            self.modules = with_adapters(run, control.adapters)

    def close(self) -> None:
        """Release the resources of the rewards, such as running processes."""
        for reward in (self.reward, self.guide):
            if reward is not None:
                reward.close()

    def watcher(self) -> Watcher | None:
        run, given, request = self.run, self.given, self.request
        if not (writes_text(run.encoder, run.space) or request.stop or request.logprobs or self.on_text):
            return None
        from afresh.engine.sampling.text_stream import watcher_of

        return watcher_of(
            *(run.family, run.encoder, run.space, self.request, self.on_text),
            also=given.get("watch"),
            constraint=given.get("constraint"),
        )

    def settings(self, watcher: Watcher | None) -> Any:
        return settings_of_works(self.run, self.given if watcher is None else {**self.given, "watch": watcher})

    def rows(self, cond: Cond, numbers: Tensor) -> Rows:
        """Draw the samples with the indices `numbers` under the conditions of `cond`."""
        run, watcher = self.run, self.watcher()
        modules = run.modules if self.modules is None else self.modules
        with reporting("drawing samples"):
            x = run.draw(modules, cond, self.seed, self.settings(watcher), numbers, self.sampler, report=True)
        if self.request.prompt is not None and contains_prompts(run.encoder):
            # Continuations x (B, T) after the known tokens of each row, padded with `end`.
            assert cond.known is not None and cond.known_mask is not None
            rows = [torch.cat([k[m], row])[None] for k, m, row in zip(cond.known, cond.known_mask, x, strict=True)]
            x = join(rows, run.encoder.space)
        values = run.encoder.decode(x)
        return Rows(values, x) if watcher is None else Rows(watcher.texts() or values, x, watcher.written())

    def __call__(self) -> Samples:
        try:
            return self.samples()
        finally:
            self.close()

    @property
    def part(self) -> str | None:
        """The part that every sample has to contain."""
        contained = contains_prompts(self.run.encoder) and self.request.strength is None
        return self.request.prompt if contained and isinstance(self.request.prompt, str) else None

    def accepted(self, value: Any) -> bool:
        """Whether a sample is valid and contains what was asked for."""
        encoder, prompts, part = self.run.encoder, self.run.encoder.abilities.prompts, self.part
        return encoder.valid(value) and (part is None or prompts is None or prompts.keeps(value, part))

    def samples(self) -> Samples:
        n, records = self.cond.size, list[dict[str, Any]]()
        if self.control.valid:
            from afresh.verbs.valid_samples import valid_samples

            drawn, kept, records = valid_samples(self.rows, self.cond, self.accepted, self.run.encoder.space)
            self.cond, self.described = self.cond.select(kept), [self.described[i] for i in kept.tolist()]
        elif self.reward is None:
            drawn = self.rows(self.cond, torch.arange(n))
        else:
            parts, records = best_of(self.rows, self.cond, self.described, self.control.best_of, self.reward)
            drawn = together(parts, self.run.encoder.space)
        empty = sum(isinstance(v, str) and not v.strip() for v in drawn.values)
        if empty:
            events.warning(f"{empty:,} of {n:,} texts are empty or only white space.")
        cut = sum(w.finish == "stop" for w in drawn.written)
        if cut and self.given.get("constraint") is not None:
            events.warning(f"{cut:,} of {n:,} texts were cut at a stop string and may not match the structure.")
        described = [{**d, **t} for d, t in zip(self.described, records or [{}] * n, strict=True)]
        if self.part is not None:
            described = [{**d, "kept": self.accepted(v)} for d, v in zip(described, drawn.values, strict=True)]
        if self.guide is not None:
            rewards = scorer_of(self.guide)(drawn.values, self.described).tolist()
            guidance = {
                "reward_guidance": self.guide.name,
                "weight": 1.0 if self.control.weight is None else self.control.weight,
            }
            described = [{**d, **guidance, "guided_reward": r} for d, r in zip(described, rewards, strict=True)]
        if self.control.adapters:
            described = [{**d, "adapters": dict(self.control.adapters)} for d in described]
        return Samples(
            drawn.values,
            drawn.x,
            self.cond,
            described,
            self.seed,
            self.run.encoder,
            drawn.written,
            hooks=self.hooks,
            notes=control_lines(described, self.control),
            arrangement=self.arrangement,
        )


def together(parts: Sequence[Rows], space: Space) -> Rows:
    """Concatenate parts of samples."""
    values = [v for part in parts for v in part.values]
    return Rows(values, join([p.x for p in parts], space), [w for part in parts for w in part.written])


def control_lines(described: Sequence[Mapping[str, Any]], control: Control) -> list[str]:
    """Lines of text that describe the effect of a control."""
    lines = []
    if control.valid:
        from afresh.verbs.valid_samples import valid_line

        lines.append(valid_line([d["attempts"] for d in described]))
    if "kept" in described[0]:
        kept = sum(d["kept"] for d in described)
        lines.append(f"{kept:,} of {len(described):,} samples are valid and contain the part that was asked for")
    if control.reward is not None:
        lines.append(best_line(described))
    if control.reward_guidance is not None:
        mean = sum(d["guided_reward"] for d in described) / len(described)
        lines.append(
            f"guided by {described[0]['reward_guidance']}, weight {described[0]['weight']:g}: mean reward {mean:.4g}"
        )
    if control.adapters:
        lines.append("adapters: " + ", ".join(f"{path} x {weight:g}" for path, weight in control.adapters.items()))
    return lines
