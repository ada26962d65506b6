"""Constraints between variables, and formulas of them: text that is parsed, and never run as code."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from alcore.errors import UsageError, did_you_mean
from alcore_space.variables import Array, Category, Variable

_LONGEST = 1000  # characters
_DEEPEST = 200  # levels of operators and functions; a sum of n terms has n, and reading a level takes two calls
_Kind = Literal["number", "text", "truth"]
_Columns = Mapping[str, Array]


class _Expression(NamedTuple):
    """A part of a constraint: the kind of its value, and what computes that from columns."""

    kind: _Kind
    compute: Callable[[_Columns], Any]


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {  # with the number of arguments; 0 is two or more
    "abs": (np.abs, 1),
    "sqrt": (np.sqrt, 1),
    "exp": (np.exp, 1),
    "log": (np.log, 1),
    "log10": (np.log10, 1),
    "log2": (np.log2, 1),
    "sin": (np.sin, 1),
    "cos": (np.cos, 1),
    "tan": (np.tan, 1),
    "asin": (np.arcsin, 1),
    "acos": (np.arccos, 1),
    "atan": (np.arctan, 1),
    "floor": (np.floor, 1),
    "ceil": (np.ceil, 1),
    "min": (np.minimum, 0),
    "max": (np.maximum, 0),
}
_CONSTANTS = {"pi": np.pi, "e": np.e}


class Constraint:
    """What a point must satisfy, such as ``2*x + y <= 3`` or ``sqrt(a)*b < 1 or fuel == "H2"``.

    Parameters
    ----------
    text
        A comparison of expressions of the variables, or several with ``and``, ``or`` and ``not``. There are
        ``+ - * / ** %``, the functions of `FUNCTIONS`, ``pi`` and ``e``.
    variables
        Those of the space.

    Raises
    ------
    UsageError
        For text that is no constraint; the message says at which column, and what is nearest.
    """

    def __init__(self, text: str, variables: Sequence[Variable]) -> None:
        if not isinstance(text, str):
            raise UsageError(f'constraint {text!r}: a constraint is text, such as "x + y <= 1".')
        self.text = text
        self._compute = _Reader("constraint", text, variables).read(
            "truth", "it has a value, and compares nothing; write such as x + y <= 1"
        )

    def satisfied(self, columns: _Columns) -> Array:
        """Return which points satisfy it: bool, shape (n,). Where an expression has no value, it is not satisfied.

        Parameters
        ----------
        columns
            The values of each variable, by name: shape (n,).
        """
        return _evaluated(self._compute, columns, np.bool_)


class Formula:
    """A number for each point, such as ``0.1 * 4**mesh``.

    Parameters
    ----------
    what
        What it is, as messages name it.
    text
        An expression of the variables, with the operations of a `Constraint`.
    variables
        Those of the space.

    Raises
    ------
    UsageError
        For text that is no such expression.
    """

    def __init__(self, what: str, text: str, variables: Sequence[Variable]) -> None:
        self.text = text
        self._compute = _Reader(what, text, variables).read(
            "number", "it compares, and has no value; write such as 0.1 * 4**x"
        )

    def values(self, columns: _Columns) -> Array:
        """Return the number of each point: float64, shape (n,); NaN or infinite where it has none.

        Parameters
        ----------
        columns
            The values of each variable, by name: shape (n,).
        """
        return _evaluated(self._compute, columns, np.float64)


def _evaluated(compute: Callable[[_Columns], Any], columns: _Columns, dtype: type[np.generic]) -> Array:
    count = len(next(iter(columns.values())))
    with np.errstate(all="ignore"):
        values = np.asarray(compute(columns), dtype=dtype)
    return np.broadcast_to(values, (count,))


def _depth(root: ast.AST) -> int:
    """Return how many levels of operators, functions and values an expression has."""
    depth, level = 0, [root]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return depth


class _Reader:
    """Makes a computation of text.

    Parameters
    ----------
    what
        What the text is, as messages name it.
    text
        The text.
    variables
        Those that it may name.
    """

    def __init__(self, what: str, text: str, variables: Sequence[Variable]) -> None:
        self.what, self.text = what, text
        self._variables = {variable.name: variable for variable in variables}
        if len(text) > _LONGEST:
            raise UsageError(f"{what} {text[:30]!r}...: it has {len(text)} characters, more than {_LONGEST}.")

    def read(self, kind: _Kind, otherwise: str) -> Callable[[_Columns], Any]:
        """Return what computes the text from columns; where it is of another kind, refuse it with this reason."""
        root = self._parsed(self.text.strip())
        if _depth(root) > _DEEPEST:
            raise self._too_deep()
        expression = self._build(root)
        if expression.kind != kind:
            self._refuse(root, otherwise)
        return expression.compute

    def _parsed(self, text: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                return ast.parse(text, mode="eval").body
        except SyntaxError as error:
            rest = text[max(0, (error.offset or len(text) + 1) - 1) :]
            place = f"column {error.offset}: {rest[:12]!r}" if rest else "at its end"
            advice = "; write == to compare, or <= or >=" if rest[:1] == "=" else ""
            raise UsageError(f"{self.what} {self.text!r}: it can't be read ({place}){advice}.") from None
        except (ValueError, RecursionError, MemoryError):  # Python's own bounds, all above _DEEPEST
            raise self._too_deep() from None

    def _too_deep(self) -> UsageError:
        return UsageError(
            f"{self.what} {self.text!r:.80}: it is nested more than {_DEEPEST} levels deep; split it into several."
        )

    def _refuse(self, node: ast.AST, reason: str) -> NoReturn:
        text = self.text.strip()
        line = text.splitlines()[getattr(node, "lineno", 1) - 1]
        column = len(line.encode()[: getattr(node, "col_offset", 0)].decode()) + 1
        part = ast.get_source_segment(text, node) or ""
        at = f" at {part!r}" if part and part != text else ""
        raise UsageError(f"{self.what} {self.text!r}, column {column}{at}: {reason}.")

    def _build(self, node: ast.AST) -> _Expression:
        match node:
            case ast.Constant(value=bool() | None):
                self._refuse(node, "True, False and None are no values here; write a comparison")
            case ast.Constant(value=int() | float() as number):
                try:
                    value = np.float64(number)
                except OverflowError:
                    self._refuse(node, "this number is too large")
                return _Expression("number", lambda _columns: value)
            case ast.Constant(value=str() as text):
                return _Expression("text", lambda _columns: text)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                inner = self._number(operand)
                negative = isinstance(sign, ast.USub)
                return _Expression("number", lambda columns: -inner(columns) if negative else inner(columns))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth = self._truth(operand)
                return _Expression("truth", lambda columns: np.logical_not(truth(columns)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                combine, first, second = _ARITHMETIC[type(op)], self._number(left), self._number(right)
                return _Expression("number", lambda columns: combine(first(columns), second(columns)))
            case ast.BoolOp(op=op, values=values):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                parts = [self._truth(value) for value in values]
                return _Expression("truth", lambda columns: _joined(join, [part(columns) for part in parts]))
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
            case ast.BinOp(op=ast.BitXor()):
                self._refuse(node, "^ is not known; write ** for a power")
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                self._refuse(node, "& and | are not known; write and, or")
            case _:
                self._refuse(node, f"{_what(node)} can't be used in a {self.what}")

    def _name(self, node: ast.AST, name: str) -> _Expression:
        if name in self._variables:
            variable = self._variables[name]
            if isinstance(variable, Category) and variable.is_text:
                return _Expression("text", lambda columns: columns[name])
            return _Expression("number", lambda columns: columns[name].astype(np.float64))
        if name in _CONSTANTS:
            value = np.float64(_CONSTANTS[name])
            return _Expression("number", lambda _columns: value)
        if name in _FUNCTIONS:
            self._refuse(node, f"{name} is a function; write {name}(...)")
        self._refuse(node, f"there is no variable {name!r}: {did_you_mean(name, self._variables)}")

    def _call(self, node: ast.Call) -> _Expression:
        if not isinstance(node.func, ast.Name):
            self._refuse(node.func, f"{_what(node.func)} can't be called; there are {', '.join(_FUNCTIONS)}")
        name = node.func.id
        if name not in _FUNCTIONS:
            self._refuse(node.func, f"there is no function {name!r}: {did_you_mean(name, _FUNCTIONS)}")
        function, wanted = _FUNCTIONS[name]
        given = len(node.args)
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._refuse(node, f"{name} takes plain arguments, as in {name}(x)")
        if given != wanted if wanted else given < 2:
            self._refuse(node, f"{name} takes {'two or more arguments' if not wanted else 'one argument'}, not {given}")
        parts = [self._number(argument) for argument in node.args]
        return _Expression("number", lambda columns: _joined(function, [part(columns) for part in parts]))

    def _comparison(self, node: ast.Compare) -> _Expression:
        sides = [self._build(operand) for operand in (node.left, *node.comparators)]
        for op, before, after, place in zip(node.ops, sides, sides[1:], node.comparators, strict=False):
            if type(op) not in _COMPARISONS:
                self._refuse(node, "only <, <=, >, >=, == and != compare")
            if "truth" in (before.kind, after.kind):
                self._refuse(place, "a comparison is compared; join comparisons with and, or")
            if before.kind != after.kind:
                self._refuse(place, f"{_article(after.kind)} is compared with {_article(before.kind)}")
            if before.kind == "text" and not isinstance(op, ast.Eq | ast.NotEq):
                self._refuse(place, "text has no order; compare it with == or !=")
        self._check_choices(node)
        steps = [
            (_COMPARISONS[type(op)], first.compute, second.compute)
            for op, first, second in zip(node.ops, sides, sides[1:], strict=False)
        ]
        return _Expression(
            "truth",
            lambda columns: _joined(
                np.logical_and, [test(left(columns), right(columns)) for test, left, right in steps]
            ),
        )

    def _check_choices(self, node: ast.Compare) -> None:
        """Refuse a comparison of a category with text that is none of its values."""
        sides = [node.left, *node.comparators]
        for named in sides:
            variable = self._variables.get(named.id) if isinstance(named, ast.Name) else None
            if not isinstance(variable, Category) or not variable.is_text:
                continue
            for other in sides:
                if isinstance(other, ast.Constant) and other.value not in variable.choices:
                    near = did_you_mean(str(other.value), variable.choices)
                    self._refuse(other, f"{variable.name} is never {other.value!r}: {near}")

    def _number(self, node: ast.AST) -> Callable[[_Columns], Any]:
        expression = self._build(node)
        if expression.kind != "number":
            self._refuse(node, f"it is {_article(expression.kind)}, and a number is needed here")
        return expression.compute

    def _truth(self, node: ast.AST) -> Callable[[_Columns], Any]:
        expression = self._build(node)
        if expression.kind != "truth":
            self._refuse(node, f"it is {_article(expression.kind)}, and a comparison is needed here")
        return expression.compute


FUNCTIONS = tuple(_FUNCTIONS)
"""The functions that constraints may use."""


def _joined(function: Callable[..., Any], values: Sequence[Any]) -> Any:
    """Return a function of one value, or of two and more from left to right."""
    if len(values) == 1:
        return function(values[0]) if not isinstance(function, np.ufunc) or function.nin == 1 else values[0]
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result


def _article(kind: _Kind) -> str:
    return {"number": "a number", "text": "text", "truth": "a comparison"}[kind]


def _what(node: ast.AST) -> str:
    names: dict[type[ast.AST], str] = {
        ast.Attribute: "a dot",
        ast.Subscript: "an index",
        ast.Lambda: "a lambda",
        ast.IfExp: "if",
        ast.List: "a list",
        ast.Tuple: "a comma outside of a function",
        ast.Dict: "braces",
        ast.Set: "braces",
        ast.NamedExpr: ":=",
        ast.JoinedStr: "an f-string",
        ast.BinOp: "this operator",
        ast.UnaryOp: "this operator",
        ast.Constant: "this value",
    }
    return names.get(type(node), "this")
