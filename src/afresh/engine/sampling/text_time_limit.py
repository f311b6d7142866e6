"""Constrained texts that are ended within the tokens that they may have."""

from __future__ import annotations

from afresh.core import UserError
from afresh.engine.sampling.constraint import Constraint

FAR = 4096  # tokens; longer endings are not looked for
SPARE = 16  # tokens beside four times the ending at which every token is checked


class Deadline:
    """A constrained text of at most `length` tokens, which is ended in time.

    As long as an ending of the text is known, a token after which none would fit is replaced by the next token of that
    ending. While far more tokens are left than it needs, an ending is only looked for now and then, and for tokens that
    may open something.
    """

    def __init__(self, constraint: Constraint, length: int, end: int) -> None:
        """`end` is the token that ends a text. Raises UserError if the ending that is found needs more than `length`
        tokens."""
        self.constraint, self.end = constraint, end
        self.plan = constraint.closing(length)  # None: no ending is known, and none is enforced
        self.stale = False  # whether the text has left the plan
        if self.plan is None and (needed := constraint.closing(FAR)) is not None:
            raise UserError(
                f"The shortest text that was found to match the constraint has {len(needed):,} tokens, and a text may "
                f"have {length:,}. Choose a greater length, such as `length={len(needed)}`."
            )
        self.next_check = self.check_after(length)

    def check_after(self, left: int) -> int:
        """The number of tokens left at which an ending is looked for again."""
        ample = left - 4 * len(self.plan or ()) - SPARE
        return left - max(0, ample // 8)

    def take(self, token: int, left: int) -> int:
        """Accept `token`, or instead of it one that ends the text in time. Returns the token that was taken.

        `left`: the tokens that may still be written, this one included.
        """
        if token == self.end:
            return token
        if self.plan is not None and not self.stale and self.plan[:1] == [token]:
            self.plan = self.plan[1:]
        elif self.plan is None or (left > self.next_check and not self.constraint.opens(token)):
            self.stale = True
        else:
            return self.checked(token, left)
        self.constraint.accept(token)
        return token

    def checked(self, token: int, left: int) -> int:
        """`take`, if the text may only go on with a token after which it can be ended."""
        if self.stale:
            self.plan, self.stale = self.constraint.closing(left), False
        trial = self.constraint.copy()
        trial.accept(token)
        after = trial.closing(left - 1)
        if after is None and self.plan is not None:
            if not self.plan:
                return self.end
            token, after = self.plan[0], self.plan[1:]
            self.constraint.accept(token)
        else:
            self.constraint = trial
        self.plan, self.next_check = after, self.check_after(left - 1)
        return token
