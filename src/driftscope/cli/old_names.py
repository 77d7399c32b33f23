"""Commands in the order of use; a command's old name goes on working, with one warning."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup

from driftscope.deprecation import renamed

OLD_COMMANDS = {"export": "export-model", "report": "study report"}
"""Old name -> the words that call the same command now."""


class Commands(TyperGroup):
    """The group of all commands."""

    order: ClassVar[list[str]] = []

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order of use."""
        return sorted(super().list_commands(ctx), key=self.order.index)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, or of an old name."""
        if cmd_name not in OLD_COMMANDS:
            return super().get_command(ctx, cmd_name)
        renamed(f"driftscope {cmd_name}", f"driftscope {OLD_COMMANDS[cmd_name]}")
        first, *rest = OLD_COMMANDS[cmd_name].split()
        command: Any = super().get_command(ctx, first)
        for word in rest:
            command = command.get_command(ctx, word)
        return command
