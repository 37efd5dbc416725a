"""The words of a command line, all of which are looked at before the command runs."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from fire import decorators

from common.errors import InputError

__all__ = ["checked_words", "value_of"]

_OPTION = re.compile(r"--|-[a-zA-Z]|-$")  # and no negative number
_AT_LEAST = {"attack_cases": 0, "seed": 0}  # any other whole number counts what there must be one of

Parameters = Mapping[str, inspect.Parameter]


def checked_words(words: Sequence[str], commands: type) -> list[str]:
    """The words for Fire, which alone would run a command first, and then complain of those that it did not know.

    Args:
        words: those behind the program's name: a command, its values in order, and its options as ``--name value``,
            ``--name=value``, ``-n value``, ``--flag`` or ``--noflag``, with dashes or underscores.
        commands: the class whose public methods are the commands. Their values become what their annotations say.

    Returns:
        the same with each option as ``--name=value``; the command and ``--help`` alone where that is asked for.

    Raises:
        InputError: no such command or option, one that could be several, one without its value, or a word too many.
    """
    end = len(words) - 1 - [*reversed(words)].index("--") if "--" in words else len(words)
    own, of_fire = words[:end], words[end:]
    if not own or own[0].startswith("-"):
        return [*words]
    verbs = {name: each for name, each in inspect.getmembers(commands, inspect.isfunction) if name[0] != "_"}
    name, rest = own[0], own[1:]
    if name not in verbs:
        raise InputError(f"'{name}'", "is no command", _nearest(name, verbs, "--help"))
    if {"--help", "-h"} & {*rest}:
        return [name, "--help"]
    parameters = dict([*inspect.signature(verbs[name], eval_str=True).parameters.items()][1:])
    _convert(verbs[name], parameters)
    return [name, *_rewritten(rest, name, parameters), *of_fire]


def value_of(text: str, option: str, kind: Any) -> Any:
    """A word as the value of an option.

    Args:
        text: the word; ``None`` for no value, where the kind allows it.
        option: its name.
        kind: ``bool``, ``int``, ``float`` or ``str``, or such a type or None.

    Raises:
        InputError: it is of another kind, or a number too small.
    """
    kinds = get_args(kind) or (kind,)
    told = f"--{option} {text}"
    if text == "None" and type(None) in kinds:
        return None
    if bool in kinds:
        if text not in ("True", "False"):
            raise InputError(told, "is neither True nor False", "write True or False")
        return text == "True"
    for number, words, example in ((int, "whole number", "10"), (float, "number", "0.01")):
        if number in kinds:
            try:
                value = number(text)
            except ValueError as error:
                raise InputError(told, f"is no {words}", f"write e.g. {example}") from error
            least = _AT_LEAST.get(option, 1)
            if number is int and value < least:
                raise InputError(told, f"is less than {least}", f"write {least} or more")
            return value
    return text


def _convert(command: Callable[..., Any], parameters: Parameters) -> None:
    """Have Fire make values by the annotations of a command, and not by what they look like."""
    decorators.SetParseFn(str)(command)  # of names without end
    for name, each in parameters.items():
        decorators.SetParseFn(partial(value_of, option=name, kind=each.annotation), name)(command)


def _rewritten(words: Sequence[str], command: str, parameters: Parameters) -> list[str]:
    options = {name: each for name, each in parameters.items() if each.kind != each.VAR_POSITIONAL}
    given: dict[str, str] = {}
    values: list[str] = []
    left = [*words]
    while left:
        word = left.pop(0)
        if not _OPTION.match(word):
            values.append(word)
            continue
        key, equals, value = word.lstrip("-").partition("=")
        name, denied = _option(word, key.replace("-", "_"), command, options)
        if denied:
            value = "False"
        elif not equals and left and not _OPTION.match(left[0]):
            value = left.pop(0)
        elif not equals and options[name].annotation is bool:
            value = "True"
        elif not equals:
            raise InputError(f"'{word}'", "has no value", f"write --{name} VALUE")
        given[name] = value
    places = [name for name, each in options.items() if each.kind != each.KEYWORD_ONLY and name not in given]
    surplus = values[len(places) :] if len(options) == len(parameters) else ()
    if surplus:
        raise InputError(f"'{surplus[0]}'", f"is a word too many for '{command}'", f"see anomaly-zoo {command} --help")
    return [*values, *(f"--{name}={value}" for name, value in given.items())]


def _option(word: str, key: str, command: str, options: Parameters) -> tuple[str, bool]:
    """The name of the option that a word means, and whether the word says no to it."""
    if key in options:
        return key, False
    flag = re.sub("^no_?", "", key)
    if flag in options and options[flag].annotation is bool and "=" not in word:
        return flag, True
    short = [name for name in options if name[0] == key]
    if len(short) == 1:
        return short[0], False
    if short:
        raise InputError(f"'{word}'", f"could be {', '.join(f'--{name}' for name in short)}", "write it in full")
    raise InputError(f"'{word}'", f"is no option of '{command}'", _nearest(key, options, f"{command} --help", "--"))


def _nearest(word: str, names: Iterable[str], remedy: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(word, [*names], 1)
    return f"write {prefix}{near[0]}" if near else f"see anomaly-zoo {remedy}"
