"""A command line with placeholders, which becomes arguments without a shell."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import string
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alcore.errors import UsageError, did_you_mean


def _operators(text: str) -> list[str]:
    """Return the words of a command that a shell would take for its own: pipes, redirections and separators."""
    reader = shlex.shlex(text, posix=False, punctuation_chars="|&;<>")
    reader.whitespace_split, reader.commenters = True, ""
    return [word for word in reader if set(word) <= set("|&;<>")]


class _Piece(NamedTuple):
    """A part of an argument: text, then perhaps a placeholder with its format."""

    text: str
    name: str | None
    form: str


class CommandTemplate:
    """A command line whose arguments have placeholders, such as ``./solver {T} --pressure={p:.3e}``.

    It is split into arguments before values are put in, so a value stays one argument, whatever it contains. ``{{`` and
    ``}}`` are braces. A name is taken as it stands between the braces: no attribute or element is looked up.

    Parameters
    ----------
    text
        The command line; quotes and backslashes as in a POSIX shell.
    where
        The parameter that it was given for, as messages name it.

    Attributes
    ----------
    names : frozenset of str
        The placeholders.
    program_names : frozenset of str
        Those in the first word, the program.

    Raises
    ------
    UsageError
        If the text is no command line, or a placeholder can't be understood.
    """

    def __init__(self, text: str, where: str) -> None:
        self.text, self._where = text, where
        self._here: Path | None = None
        try:
            words = shlex.split(text)
            self._words = [_pieces(word) for word in words]
        except ValueError as error:
            raise UsageError(
                f"{where} is {text!r}, which can't be split into arguments: {error}. Placeholders are {{name}}; one "
                'with a space in its name stands in quotes, "{a name}", and a brace is written {{ or }}.'
            ) from error
        if operators := _operators(text):
            raise UsageError(
                f"{where} is {text!r}, and no shell runs it, so {operators[0]!r} would be an argument of the program. "
                "Write a script with these commands, and name that here; in quotes it is a plain argument."
            )
        if not words:
            raise UsageError(f"{where} is empty; give the program and its arguments, such as './solver {{x0}} {{x1}}'.")
        self.names = _names(*self._words)
        self.program_names = _names(self._words[0])

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise `UsageError` for a placeholder that is unknown, or whose value can't have the wanted format."""
        check_names(self.names, values, self._where)
        self.arguments(values)

    def arguments(self, values: Mapping[str, Any]) -> list[str]:
        """Return the program and its arguments with these values.

        Parameters
        ----------
        values
            At least those that are named.

        Raises
        ------
        UsageError
            If a name is missing, or a value can't have the wanted format, or can't be an argument of a program.
        """
        check_names(self.names, values, self._where)
        program, *others = ["".join(self._filled(piece, values) for piece in word) for word in self._words]
        if self._here is not None and "/" in program:
            program = str(self._here / program)
        for argument in (program, *others):
            check_argument(argument, self._where)
        return [program, *others]

    def check_program(self, values: Mapping[str, Any]) -> None:
        """Raise `UsageError` if there is no such program with these values."""
        _program(self.arguments(values)[0], self._here or Path.cwd(), self._where)

    def _filled(self, piece: _Piece, values: Mapping[str, Any]) -> str:
        if piece.name is None:
            return piece.text
        value = values[piece.name]
        if not piece.form:
            return piece.text + text_of(value)
        try:
            return piece.text + format(_number(value), piece.form)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{self._where}: the value of {{{piece.name}}} is {value!r}, which can't be written as "
                f"{{{piece.name}:{piece.form}}}: {error}."
            ) from error

    def with_paths(self, here: Path) -> CommandTemplate:
        """Return the template for a program that works in another folder than the one in which it was written.

        Arguments without placeholders that name a file from `here` become absolute, and so does the program, with the
        values that are put into it.

        Raises
        ------
        UsageError
            If there is no such program.
        """
        made = CommandTemplate.__new__(CommandTemplate)
        made.text, made._where, made._here = self.text, self._where, here
        made.names, made.program_names = self.names, self.program_names
        program, *others = self._words
        made._words = [program, *(_absolute(word, here) for word in others)]
        if len(program) == 1 and program[0].name is None:
            made._words[0] = [_Piece(_program(program[0].text, here, self._where), None, "")]
        return made


def check_argument(text: str, where: str) -> None:
    """Raise `UsageError` where a text can't be an argument, or a variable, of a program."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        why = "half of a character (a lone surrogate)"
    else:
        if "\0" not in text:
            return
        why = "a NUL character"
    raise UsageError(f"{where}: {text[:80]!r} can't be given to a program, since it has {why}.")


def check_names(names: Collection[str], allowed: Collection[str], where: str) -> None:
    """Raise `UsageError` for the first placeholder that is not known, with the nearest one that is."""
    for name in sorted(set(names) - set(allowed)):
        raise UsageError(f"{where} has the placeholder {{{name}}}, which is not known: {did_you_mean(name, allowed)}.")


def text_of(value: Any) -> str:
    """Return a value as an argument: numbers so that they are read back exactly, lists and mappings as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)


def _names(*words: list[_Piece]) -> frozenset[str]:
    return frozenset(piece.name for word in words for piece in word if piece.name is not None)


def _pieces(word: str) -> list[_Piece]:
    pieces = []
    for text, name, form, conversion in string.Formatter().parse(word):
        if conversion is not None or (form and "{" in form):
            raise ValueError(f"{word!r} has a conversion or a nested placeholder; write {{name}} or {{name:.3e}}")
        if name == "":
            raise ValueError(f"{word!r} has a placeholder without a name")
        pieces.append(_Piece(text, name, form or ""))
    return pieces or [_Piece("", None, "")]


def _number(value: Any) -> Any:
    """Return the number that a text is; columns of files are text."""
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _absolute(word: list[_Piece], here: Path) -> list[_Piece]:
    """Return an argument, absolute where it is the name of a file."""
    (piece, *others) = word
    if others or piece.name is not None or not piece.text or piece.text.startswith("-"):
        return word
    try:
        is_file = (here / piece.text).is_file()
    except (OSError, ValueError):
        is_file = False
    return [_Piece(str(here / piece.text), None, "")] if is_file and not Path(piece.text).is_absolute() else word


def _program(name: str, here: Path, where: str) -> str:
    """Return where a program is."""
    path = shutil.which(name) if "/" not in name else shutil.which(str(here / name))
    if path is None:
        near = here / name
        why = "is not executable (chmod +x)" if near.is_file() else "is not there"
        place = f"{near} {why}" if "/" in name else f"there is no {name} on the PATH"
        if near.is_file() and "/" not in name:
            place += f"; the file of this folder is ./{name}"
        raise UsageError(f"{where}: the program {name!r} can't be run, since {place}.")
    return str(Path(path).absolute())
