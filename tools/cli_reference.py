"""Writes docs/cli.md, the reference of all commands, from the commands themselves.

python tools/cli_reference.py           writes the page
python tools/cli_reference.py --print   prints it
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from driftscope.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# Commands

`python tools/cli_reference.py` makes this page from the commands. `driftscope COMMAND --help`
prints the same in a terminal. `driftscope --install-completion` lets your shell complete commands
and options. `python -m driftscope` is the same program.
"""


def reference() -> str:
    """The page: a section a command, with its arguments, options and an example."""
    root: Any = get_command(app)
    lines = [HEAD, *_options(root)]
    for name, command in _commands(root):
        lines += _section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any, path: str = "driftscope") -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(None):
        command = group.commands[name]
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")


def _section(name: str, command: Any) -> list[str]:
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    lines = [f"{'###' if name.count(' ') > 1 else '##'} {name}", "", "\n\n".join(paragraphs), ""]
    if command.epilog:
        lines += [f"Example: `{command.epilog.removeprefix('Example: ')}`", ""]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_argument(one)}` | {_escaped(one.help or '')} |" for one in arguments]
        lines.append("")
    return [*lines, *_options(command)]


def _argument(argument: Any) -> str:
    name = argument.name.upper() + ("…" if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _options(command: Any) -> list[str]:
    shown = [
        one
        for one in command.params
        if one.param_type_name == "option" and not one.hidden and "completion" not in one.name
    ]
    if not shown:
        return []
    rows = [f"| {_name(one)} | {_escaped(one.help or '')} | {_default(one)} |" for one in shown]
    return ["| option | meaning | default |", "|---|---|---|", *rows, ""]


def _name(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names if option.is_flag else f"{names} {option.metavar or 'VALUE'}"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag or option.default in (None, ()):
        return ""
    return f"`{option.default}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(reference(), end="")
    else:
        PAGE.write_text(reference(), encoding="utf-8")
