"""Every command has help, an example that parses, and a line in the README; every example there parses too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mmsearch.cli.app import app

README = Path(__file__).parents[1] / "README.md"


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(names, command) of the program, its groups and their commands."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands())


def examples(text: str) -> list[str]:
    """Lines that call mmsearch; a backslash continues a line; what follows two spaces is a remark."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^\s*(?:\$ )?(mmsearch .+?)(?:\s{2,}.*)?$", joined, re.MULTILINE)
    return [line.split(" | ")[0] for line in lines]


def complaint(example: str) -> str | None:
    """What is wrong with an example: an unknown command or option, or too much on the line."""
    words = shlex.split(example, comments=True)[1:]
    path: tuple[str, ...] = ()
    options = {name: option for option in COMMANDS[()].params for name in option.opts}
    while words:
        word = words.pop(0)
        if (*path, word) in COMMANDS:
            path = (*path, word)
            options |= {name: option for option in COMMANDS[path].params for name in option.opts}
        elif word.startswith("-"):
            name = word.split("=")[0]
            if name not in options and name not in ("--help", "--install-completion", "--show-completion"):
                return f"no option {name}"
            if name in options and not options[name].is_flag and "=" not in word and not words:
                return f"{name} lacks its value"
            if name in options and not options[name].is_flag and "=" not in word:
                words.pop(0)
        elif not any(param.param_type_name == "argument" for param in COMMANDS[path].params):
            return f"no command {word}"
    return None


def test_the_commands_are_those_we_promise() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        *("", "index", "query", "status", "verify", "doctor", "eval", "compare", "train", "demo"),
        *("duplicates", "describe", "tag"),
        *("serve", "why", "save", "saved", "saved list", "saved remove"),
        *("roots", "roots list", "roots remove", "roots relocate", "models", "models pull"),
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_an_example_of_itself(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help, path
    for param in command.params:
        assert param.help, (path, param.name)
    found = examples(command.epilog or "")
    assert any(example.startswith(" ".join(("mmsearch", *path))) for example in found), path
    assert [complaint(example) for example in found] == [None] * len(found)


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_the_terminal(path: tuple[str, ...], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    command = COMMANDS[path]
    with command.make_context(" ".join(("mmsearch", *path)), [], resilient_parsing=True) as context:
        text = command.get_help(context)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


@pytest.mark.parametrize("path", [path for path in COMMANDS if path], ids=" ".join)
def test_every_command_has_a_line_in_the_readme(path: tuple[str, ...]) -> None:
    assert f"mmsearch {' '.join(path)}" in README.read_text(encoding="utf-8")


def test_every_example_of_the_readme_parses() -> None:
    found = examples(README.read_text(encoding="utf-8"))
    assert len(found) >= 5
    assert {example: wrong for example in found if (wrong := complaint(example))} == {}


def test_wrong_examples_are_noticed() -> None:
    assert complaint('mmsearch query "a red car" --json -k 3') is None
    assert complaint("mmsearch query --likes x") == "no option --likes"
    assert complaint("mmsearch find x") == "no command find"
    assert complaint("mmsearch query x -k") == "-k lacks its value"
