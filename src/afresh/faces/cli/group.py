"""Commands with their common options and settings; commands that belong together, `afresh NAME VERB`, each verb a
function as those of other commands are; and what commands and options of earlier versions are called now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import typer

from afresh.faces.cli.completion import settings
from afresh.faces.cli.options import COMMON, SETTINGS
from afresh.faces.cli.paths import Refusal

# What is typed in place of a command of earlier versions. A verb of such a name has no command of its own.
RENAMED = {
    "catalogue forget": "catalogue orders --forget PERSON",
    "catalogue grant": "catalogue orders --grant LISTING --to PERSON",
    "catalogue init": "catalogue add FILE --licence LICENCE --set name=NAME",
    "catalogue list": "catalogue publish --dry-run",
    "catalogue payments": "catalogue orders FILE",
    "catalogue price": "catalogue add LISTING --price PRICE",
    "catalogue remove": "catalogue publish --remove LISTING --reason WHY",
    "forget": "rm --data DATASET --person NAME",
    "label": "show RUN --format label",
    "make-data": "demo DATA",
    "pack": "export RUN --to bundle",
    "runs": "show",
}
# The same of options. Those that are settings of their command now stand in `Command.renamed`.
RENAMED_OPTIONS = {
    "chat --top-p": "--set top_p=VALUE",
    "collect --cluster": "--on ADDRESS",
    "sample --min-p": "--set min_p=VALUE",
    "sample --order": "--set order=VALUE",
    "sample --solver": "--set solver=VALUE",
    "sample --top-k": "--set top_k=VALUE",
    "sample --top-p": "--set top_p=VALUE",
    "sample --truncation": "--set truncation=VALUE",
    "sample --weights": "--set weights=VALUE",
}
SET, PANEL = "--set", "Common options"


class Command(typer.core.TyperCommand):
    """A command whose options in the panel `SETTINGS` are typed as `--set NAME=VALUE`.

    `settings`: these options by name. `renamed`: what is typed in place of options of earlier versions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings: dict[str, Any] = {}
        self.renamed = {old.split()[1]: new for old, new in RENAMED_OPTIONS.items() if old.startswith(f"{self.name} ")}
        for p in self.params:
            if not COMMON.keys().isdisjoint(p.opts):
                p.rich_help_panel = PANEL  # type: ignore[attr-defined]
            elif getattr(p, "rich_help_panel", None) == SETTINGS:
                self._add_setting(p)
        self.own = own = next((p for p in self.params if SET in p.opts), None)
        self.takes_others = own is not None
        if self.settings and own is None:
            self.own = own = copy(next(iter(self.settings.values())))
            own.name, own.opts, own.hidden, own.expose_value, own.callback = "set", [SET], False, False, None
            own.help, own.metavar, own.default, own.show_default = "A setting.", "KEY=VALUE", None, False
            own._custom_shell_complete = lambda ctx, _, incomplete: settings(ctx, incomplete)
            own.rich_help_panel = PANEL
            self.params.append(own)
        if self.settings:
            own.help = f"{own.help} Also {', '.join(self.settings)}: {SET} help explains them."  # type: ignore[union-attr]

    def _add_setting(self, p: Any) -> None:
        """Make an option a setting."""
        name = f"{SET} {p.name}"
        self.settings[p.name] = p
        self.renamed |= dict.fromkeys(p.opts, f"{name}={'yes' if p.is_flag else 'VALUE'}")
        self.renamed |= dict.fromkeys(p.secondary_opts, f"{name}=no")
        p.opts, p.secondary_opts, p.hidden, p.is_flag = [name], [], True, False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, list(self.joined(ctx, args)))
        except Exception as error:
            old = getattr(error, "option_name", None)
            if old not in self.renamed:
                raise
            raise Refusal(f"{old} is now: {self.renamed[old]}", ctx) from None

    def joined(self, ctx: Any, args: Sequence[str]) -> Iterator[str]:
        """The words of a command line, in which a setting is one word: `--set NAME=VALUE`.

        Raises a usage error for a setting that the command does not have.
        """
        words = iter(args)
        for word in words:
            flag, equals, pair = word.partition("=")
            if flag == SET and not equals:
                pair = next(words, "")
            name, given, value = pair.partition("=")
            name = name.replace("-", "_")
            if flag != SET or not pair:
                yield word
            elif pair == "help" and self.own is not None:
                known = {name: p.help for name, p in self.settings.items()}
                names = (item.value.removesuffix("=") for item in self.own.shell_complete(ctx, "") if item.value)
                for name, about in (dict.fromkeys(names, "") | known).items():
                    typer.echo(f"{SET} {name}=VALUE  {about}".rstrip())
                ctx.exit()
            elif name in self.settings and given:
                yield f"{SET} {name}={value}"
            elif self.takes_others or not self.settings:
                yield from (SET, pair)
            else:
                raise Refusal(f"No setting {name}. Known: {', '.join(self.settings)}.", ctx)
            if word == "--":
                yield from words


@dataclass(frozen=True)
class Group:
    """A command of several verbs. `help` says what they are for."""

    name: str
    help: str
    verbs: tuple[Callable[..., Any], ...]


def verb_name(verb: Callable[..., Any]) -> str:
    return verb.__name__.strip("_").replace("_", "-")
