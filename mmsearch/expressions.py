"""The language of `where`, as in "width >= 1920 and camera like 'Canon%'": text -> an expression tree.

In: what a person typed. Out: a tree of `conditions.py`, which also says what an expression means; a mistake is named
with its place. Pure; lark (LALR) is imported only when there is a text to parse.
"""

from __future__ import annotations

import difflib
import math
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from mmsearch.conditions import (
    DATE_FORMS,
    FIELDS,
    ORIENTATIONS,
    And,
    Between,
    Compare,
    Like,
    Missing,
    Node,
    Not,
    OneOf,
    Or,
    Value,
    any_of,
    format_named,
    span,
)
from mmsearch.errors import UsageError

if TYPE_CHECKING:
    from lark import Lark, Token, Tree
    from lark.exceptions import UnexpectedInput

MAX_CHARACTERS = 10_000
MAX_CONDITIONS = 200  # SQLite refuses expressions of 1,000 levels, and each `or` is one
MAX_DEPTH = 30

GRAMMAR = r"""
?condition: both | both (_OR both)+ -> any_of
?both: one | one (_AND one)+        -> all_of
?one: "(" condition ")"
    | NOT one                                  -> negated
    | WORD OPERATOR value                      -> compared
    | WORD [NOT] _LIKE value                   -> like
    | WORD [NOT] _IN "(" value ("," value)* ")" -> one_of
    | WORD [NOT] _BETWEEN value _AND value     -> between
    | WORD _IS [NOT] _NULL                     -> missing
?value: NUMBER | DATE | STRING | WORD

_OR.2: /or\b/i
_AND.2: /and\b/i
NOT.2: /not\b/i
_LIKE.2: /like\b/i
_IN.2: /in\b/i
_BETWEEN.2: /between\b/i
_IS.2: /is\b/i
_NULL.2: /null\b/i
OPERATOR: /[=<>!~]+/
DATE.2: /[0-9]{4}-[0-9]{2}(-[0-9]{2})?\b/
NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?/i
STRING: /'([^']|'')*'|"([^"]|"")*"/
WORD: /[^\W\d]\w*/
%ignore /\s+/
"""
_OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "like", "in", "between", "is")
_SLIPS = {
    "==": "=",
    "===": "=",
    "=>": ">=",
    "=<": "<=",
    "!": "!=",
    "!==": "!=",
    "~": "like",
    "~=": "like",
    "=~": "like",
}
_SLIPS |= dict.fromkeys(("contains", "has", "matches", "ilike", "glob", "regexp"), "like")
_SLIPS |= dict.fromkeys(("equals", "eq"), "=")


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", start="condition", maybe_placeholders=True)


@lru_cache(maxsize=64)
def parse(text: str) -> Node:
    """An expression -> its tree. UsageError in one line that names the place of the mistake, from column 1."""
    if not text.strip():
        raise UsageError("The filter is empty; write a condition, as in \"width >= 1920 and camera like 'Canon%'\".")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"The filter has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    from lark.exceptions import UnexpectedInput

    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _mistake(text, *_explained(text, error)) from error
    return _Reader(text).node(tree, 1)


def _mistake(text: str, position: int, reason: str) -> UsageError:
    """position: from 0. A long filter is shown around the place of the mistake."""
    start = 0 if len(text) <= 100 else max(0, position - 40)
    end = len(text) if len(text) <= 100 else position + 40
    shown = f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
    return UsageError(f'The filter has a mistake at column {position + 1}: "{shown}": {reason}.')


def _explained(text: str, error: UnexpectedInput) -> tuple[int, str]:
    """(position, reason) of what the parser stumbled over."""
    from lark.exceptions import UnexpectedToken

    if not isinstance(error, UnexpectedToken):
        position = error.pos_in_stream or 0
        character = text[position]
        if character in "'\"":
            return position, f"this quote {character} is never closed"
        return position, f"{character!r} does not belong here; texts stand in straight quotes"
    token: Token = error.token
    expected = error.accepts or error.expected
    at_end = token.type == "$END"
    position = len(text.rstrip()) if at_end else int(token.start_pos or 0)
    found = "the end" if at_end else repr(str(token))
    if "OPERATOR" in expected:
        return position, _no_operator(str(token))
    if "_LIKE" in expected:
        return position, f"after `not` stands like, in or between here, not {found}"
    if "STRING" in expected:
        return position, f"a number, a date or a text in quotes is missing before {found}"
    if at_end and "RPAR" in expected:
        return position, "a parenthesis that was opened is not closed"
    if "WORD" in expected:
        return position, f"a field such as width is missing before {found}"
    if "_NULL" in expected:
        return position, f"after `is` stands null or not null, not {found}; to compare, write ="
    if "LPAR" in expected:
        return position, "after `in` stand values in parentheses, as in (1, 2)"
    if token.type == "RPAR":
        return position, "this parenthesis was never opened"
    if "COMMA" in expected:
        return position, f"a comma or the closing parenthesis is missing before {found}"
    if expected <= {"_AND"}:
        return position, "after `between` stand two values, as in between 1 and 2"
    return position, f"`and` or `or` is missing before {found}"


def _no_operator(written: str) -> str:
    """written: what stands where an operator should; empty at the end of the text."""
    if not written:
        return f"an operator is missing, one of: {', '.join(_OPERATORS)}"
    near = _SLIPS.get(written.lower()) or next(iter(difflib.get_close_matches(written.lower(), _OPERATORS, 1)), None)
    hint = f"; did you mean {near}? Valid" if near else "; valid"
    return f"{written!r} is no operator{hint} are: {', '.join(_OPERATORS)}"


class _Reader:
    """Turns lark's tree of one text into ours, with the checks that a grammar cannot make."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.conditions = 0

    def node(self, tree: Tree[Token], depth: int) -> Node:
        parts: list[Any] = tree.children
        if depth > MAX_DEPTH:
            raise UsageError(f"The filter is nested more than {MAX_DEPTH} deep; write it flatter.")
        if tree.data == "any_of":
            return Or(tuple(self.node(part, depth + 1) for part in parts))
        if tree.data == "all_of":
            return And(tuple(self.node(part, depth + 1) for part in parts))
        if tree.data == "negated":
            return Not(self.node(parts[1], depth + 1))
        field = self._field(parts[0])
        self._count(len(parts) - 2 if tree.data == "one_of" and FIELDS[field] == "date" else 1)
        if tree.data == "compared":
            return self._compared(field, parts[1], parts[2])
        node = getattr(self, f"_{tree.data}")(field, *parts[2:])
        return node if parts[1] is None else Not(node)

    def _compared(self, field: str, operator: Token, value: Token) -> Node:
        sign = {"<>": "!=", "!=": "!="}.get(operator, str(operator))
        if sign not in _OPERATORS:
            raise self._wrong(operator, _no_operator(str(operator)))
        if sign == "!=":
            return Not(self._equal(field, value))
        return self._equal(field, value) if sign == "=" else self._relation(field, sign, value)

    def _equal(self, field: str, value: Token) -> Node:
        if FIELDS[field] != "date":
            return Compare(field, "=", self._value(field, value))
        start, end = self._span(field, value)
        return And((Compare(field, ">=", start), Compare(field, "<", end)))

    def _relation(self, field: str, sign: Any, value: Token) -> Node:
        if FIELDS[field] != "date":
            return Compare(field, sign, self._value(field, value))
        start, end = self._span(field, value)
        return Compare(field, "<" if sign in ("<", "<=") else ">=", start if sign in ("<", ">=") else end)

    def _like(self, field: str, value: Token) -> Node:
        if FIELDS[field] != "text":
            raise self._wrong(value, f"`like` is for texts; {field} is a {FIELDS[field]}")
        return Like(field, self._text(field, value))

    def _one_of(self, field: str, *values: Token) -> Node:
        if FIELDS[field] == "date":
            return any_of([self._equal(field, value) for value in values])
        return OneOf(field, tuple(self._value(field, value) for value in values))

    def _between(self, field: str, low: Token, high: Token) -> Node:
        if FIELDS[field] == "date":
            return And((self._relation(field, ">=", low), self._relation(field, "<=", high)))
        return Between(field, self._value(field, low), self._value(field, high))

    def _missing(self, field: str) -> Node:
        return Missing(field)

    # --- fields and values ----------------------------------------------------------------------------------------

    def _field(self, token: Token) -> str:
        name = token.lower()
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise self._wrong(token, f"there is no field {str(token)!r}{hint} Valid are: {', '.join(FIELDS)}")
        return name

    def _value(self, field: str, token: Token) -> Value:
        return self._number(field, token) if FIELDS[field] == "number" else self._text(field, token)

    def _number(self, field: str, token: Token) -> float:
        if token.type != "NUMBER":
            raise self._wrong(token, f"{field} is compared with a number, not {_shown(token)}")
        number = float(token)
        if not math.isfinite(number):
            raise self._wrong(token, f"the number {token} is too large")
        return int(number) if number.is_integer() and abs(number) < 2**53 else number

    def _text(self, field: str, token: Token) -> str:
        if token.type != "STRING":
            raise self._wrong(token, f"{field} is compared with a text in quotes, as in '{token}'")
        quote = token[0]
        text = token[1:-1].replace(quote * 2, quote)
        try:
            return self._known(field, text)
        except UsageError as error:
            raise self._wrong(token, str(error).rstrip(".").replace("There is", "there is")) from error

    def _known(self, field: str, text: str) -> str:
        """Fields that have few values take no others, but for patterns."""
        if field == "format" and "%" not in text and "_" not in text:
            return format_named(text)
        if field == "orientation" and "%" not in text and "_" not in text and text.lower() not in ORIENTATIONS:
            raise UsageError(f"There is no orientation {text!r}; valid are: {', '.join(ORIENTATIONS)}.")
        return text

    def _span(self, field: str, token: Token) -> tuple[datetime, datetime]:
        text = token[1:-1] if token.type == "STRING" else str(token)
        try:
            return span(text)
        except UsageError as error:
            raise self._wrong(
                token, f"{field} is compared with a date such as {DATE_FORMS}, not {_shown(token)}"
            ) from (error)

    def _count(self, conditions: int = 1) -> None:
        self.conditions += conditions
        if self.conditions > MAX_CONDITIONS:
            raise UsageError(f"The filter has more than {MAX_CONDITIONS} conditions; write it shorter.")

    def _wrong(self, token: Token, reason: str) -> UsageError:
        return _mistake(self.text, int(token.start_pos or 0), reason)


def _shown(token: Token) -> str:
    """A value as it was written, words in quotes so that they stand out."""
    return f"'{token}'" if token.type == "WORD" else str(token)
