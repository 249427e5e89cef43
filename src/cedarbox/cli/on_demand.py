"""Groups of commands that import a command when it is called: reading a ledger must not load the Agents SDK."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

__all__ = ["Command", "group_of"]


class Command(NamedTuple):
    """A command, or a group of them, before it is imported.

    Attributes:
        about: What the help of its group says of it.
        module: Where it is.
        name: What it is there: a function, or an application of Typer's.
    """

    about: str
    module: str
    name: str


def group_of(commands: Mapping[str, Command]) -> type[TyperGroup]:
    """Return a class of groups, for Typer's ``cls``.

    Args:
        commands: What is in the group, by its name on the command line, in the order of the help.
    """

    class OnDemand(TyperGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.commands: Any = dict.fromkeys(commands)  # the names alone, for what looks for similar ones

        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return None
            _, module, name = commands[cmd_name]
            found = getattr(import_module(module), name)
            shell = typer.Typer(add_completion=False, rich_markup_mode=None)
            if isinstance(found, typer.Typer):
                shell.add_typer(found, name=cmd_name)
                group: Any = typer.main.get_command(shell)
                return group.get_command(ctx, cmd_name)
            shell.command(cmd_name)(found)
            return typer.main.get_command(shell)

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.about) for name, command in commands.items()])

    return OnDemand
