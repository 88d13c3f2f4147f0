"""The small language in which observables and selections are written.

A sentence is built from

    a[0], j[1]              objects ordered by pT: the leading photon, the second jet
    a[0].pt                 their attributes e px py pz pt eta phi m; sums of them have the same
    m[0].Charge             what else the file tells of an object, by the name of the branch
    met.pt                  missing transverse momentum: px py pt phi
    deltaphi(x, y)          of two of these, in [-pi, pi); deltaeta, deltar, mt (transverse mass)
    n(j), sum_pt(j)         number of objects, and sum of their pT, after the object selection
    sqrt log exp cos sin    functions of numbers, with tan, abs, min(x, y, ...), max(x, y, ...)
    + - * /                 the arithmetic of numbers, comparisons, and `and or not`

    (a[0] + a[1]).m          abs(deltaphi(j[0], j[1]))          115 < (a[0] + a[1]).m < 135

A bare name is a column: one number per event, or, in the selection of objects, one per object
(`pt > 20 and abs(eta) < 2.5`). Nothing else is in the language, and nothing is passed to
`eval`: a sentence is parsed, checked against a white list, and evaluated on whole columns.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import EventDataError, ExpressionError
from mflow_sbi.events.momenta import (
    ATTRIBUTES,
    PLANAR_ATTRIBUTES,
    FourMomentum,
    deltaeta,
    deltaphi,
    deltar,
    transverse_mass,
)
from mflow_sbi.events.wording import counted, listed, nearest

__all__ = ["Expression", "FourMomentum", "Namespace"]

_LONGEST = 500
_LARGEST = float(np.finfo(np.float64).max)
_DEEPEST = 200  # parts within parts: well inside what Python's own recursion bears

Kind: TypeAlias = Literal["number", "momentum", "planar momentum", "truth"]
_PLANAR = ("met",)  # names of planar momenta, where an attribute or a function follows
_OF_NUMBERS: dict[str, tuple[Callable, int, int]] = {
    **{f.__name__: (f, 1, 1) for f in (np.sqrt, np.log, np.exp, np.cos, np.sin, np.tan)},
    "abs": (np.abs, 1, 1),
    "min": (lambda *columns: reduce(np.minimum, columns), 2, 20),
    "max": (lambda *columns: reduce(np.maximum, columns), 2, 20),
}
"""Functions of numbers, with the least and largest number of them."""
_OF_TWO: dict[str, tuple[Callable, tuple[Kind, ...]]] = {
    "deltaphi": (deltaphi, ("momentum", "planar momentum", "number")),
    "deltaeta": (deltaeta, ("momentum",)),
    "deltar": (deltar, ("momentum",)),
    "mt": (transverse_mass, ("momentum", "planar momentum")),
}
"""Functions of two things, with what these may be."""
_OF_COLLECTIONS = ("n", "sum_pt")
_FUNCTIONS = (*_OF_NUMBERS, *_OF_TWO, *_OF_COLLECTIONS)
_BINARY: dict[type[ast.operator], Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARE: dict[type[ast.cmpop], Callable] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


Namespace: TypeAlias = Mapping[str, Any]
"""What names stand for: `a` -> leading photons (FourMomentum, ...), `met` -> PlanarMomentum, a
column name, `n(a)` and `sum_pt(a)` -> (N,), `a.Charge` -> one (N,) for each leading photon."""


class Expression:
    """A checked sentence of the language, ready to be evaluated on columns.

    Attributes:
        text: The sentence as written.
        kind: "number", "momentum" or "truth" (a selection).
        objects: How many leading objects of each collection are needed, e.g. {"a": 2}; 0 where
            only their number or the sum of their pT is.
        columns: Bare names used, in order of appearance.
        planar: Planar momenta used: "met".
        further: Further attributes of objects, by symbol, e.g. {"m": ["Charge"]}.

    Raises:
        ExpressionError: Not a sentence of the language.

    >>> Expression("(a[0] + a[1]).m > 115").objects
    {'a': 2}
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: dict[str, int] = {}
        self.columns: list[str] = []
        self.planar: list[str] = []
        self.further: dict[str, list[str]] = {}
        if len(text) > _LONGEST:
            self._refuse(f"it is longer than {_LONGEST} characters")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or str(error) or "too deeply nested"
            self._refuse(f"it does not parse ({reason})", error)
        if _deeper_than(_DEEPEST, self._tree):
            self._refuse(f"it is nested more than {_DEEPEST} levels deep")
        self.kind: Kind = self._check(self._tree)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def require_kind(self, kind: Kind, role: str) -> "Expression":
        """Return self if the sentence is of `kind`, else refuse it as the `role` it plays."""
        if self.kind != kind:
            hints = {"number": "e.g. '(a[0]+a[1]).m'", "truth": "e.g. '(a[0]+a[1]).m > 115'"}
            msg = (
                f"{role} {self.text!r} is a {self.kind}; "
                f"expected a {kind}, {hints.get(kind, 'a sum of objects')}."
            )
            raise ExpressionError(msg)
        return self

    def require_names(self, objects: Sequence[str], columns: Sequence[str]) -> "Expression":
        """Return self if every name is known to the file's layout, else refuse."""
        for name in self.objects:
            if name not in objects:
                msg = (
                    f"{self.text!r}: no objects {name!r} here; "
                    f"this layout provides {listed(objects)}."
                )
                raise ExpressionError(msg)
        for name in self.columns:
            if name not in columns:
                msg = (
                    f"{self.text!r}: no column {name!r}; "
                    f"columns here: {listed(columns)}.{nearest(name, columns)}"
                )
                raise ExpressionError(msg)
        return self

    def __call__(self, namespace: Namespace, cache: dict | None = None) -> Any:  # noqa: ANN401
        """Return the column of values, (N,); selections give booleans.

        Args:
            namespace: What the names stand for.
            cache: Shared between sentences evaluated on the same namespace, so that common parts
                are computed once.

        Raises:
            EventDataError: A compared number is not finite.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self._value(self._tree, namespace, {} if cache is None else cache)

    # Checking: what kind of thing is this node?

    def _refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        msg = (
            f"cannot read {self.text!r}: {reason}. Expected objects like a[0] or j[1], attributes "
            f"{' '.join(ATTRIBUTES)}, + - * /, {', '.join(_FUNCTIONS)}, comparisons, and/or/not."
        )
        raise ExpressionError(msg) from cause

    def _check(self, node: ast.expr) -> Kind:
        match node:
            case ast.Constant(value=int() | float() as value) if type(value) is not bool:
                if not abs(value) <= _LARGEST:
                    self._refuse(f"{ast.unparse(node)[:20]}... is beyond all numbers of events")
                return "number"
            case ast.Name(id=name):
                self.columns.extend([] if name in self.columns else [name])
                return "number"
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=index)):
                if type(index) is not int or index < 0:
                    self._refuse(f"{name}[{index!r}] needs a number 0, 1, 2, ...")
                self.objects[name] = max(self.objects.get(name, 0), index + 1)
                return "momentum"
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in _PLANAR:
                self._note_planar(name)
                if attr not in PLANAR_ATTRIBUTES:
                    hint = f"it has {listed(PLANAR_ATTRIBUTES)}"
                    self._refuse(f"{name} has no attribute {attr!r}: {hint}")
                return "number"
            case ast.Attribute(value=owner, attr=attr):
                self._expect(owner, "momentum", f".{attr}")
                if attr not in ATTRIBUTES:
                    self._note_further(owner, attr)
                return "number"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                adds = isinstance(op, ast.Add)
                kind = self._expect(left, ("number", "momentum") if adds else "number", "+ - * /")
                return self._expect(right, kind, f"+ after a {kind}" if adds else "+ - * /")
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return self._expect(operand, "number", "a sign")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._expect(operand, "truth", "not")
            case ast.Call(func=ast.Name(id=name), args=operands, keywords=[]):
                return self._check_call(name, operands)
            case ast.Compare(left=left, ops=ops, comparators=others) if all(
                type(op) in _COMPARE for op in ops
            ):
                for operand in (left, *others):
                    self._expect(operand, "number", "a comparison")
                return "truth"
            case ast.BoolOp(values=values):
                for value in values:
                    self._expect(value, "truth", "and/or")
                return "truth"
        return self._refuse(f"{ast.unparse(node)!r} is not in the language")

    def _check_call(self, name: str, operands: list[ast.expr]) -> Kind:
        if name in _OF_COLLECTIONS:
            match operands:
                case [ast.Name(id=symbol)]:
                    self.objects.setdefault(symbol, 0)
                    return "number"
            self._refuse(f"{name}() needs one kind of objects, e.g. {name}(j)")
        if name in _OF_TWO:
            return self._check_pair(name, operands)
        if name not in _OF_NUMBERS:
            self._refuse(f"there is no function {name!r}{nearest(name, _FUNCTIONS)}")
        _, least, most = _OF_NUMBERS[name]
        if not least <= len(operands) <= most:
            expected = counted(least, "number") if least == most else f"{least} or more numbers"
            self._refuse(f"{name}() needs {expected}, got {len(operands)}")
        for operand in operands:
            self._expect(operand, "number", f"{name}()")
        return "number"

    def _check_pair(self, name: str, operands: list[ast.expr]) -> Kind:
        kinds = _OF_TWO[name][1]
        if len(operands) != 2:
            self._refuse(f"{name}() needs two operands, got {len(operands)}")
        found = set()
        for operand in operands:
            if isinstance(operand, ast.Name) and operand.id in _PLANAR and len(kinds) > 1:
                self._note_planar(operand.id)
                found.add("momentum")
            else:
                found.add(self._expect(operand, kinds, f"{name}()"))
        if len(found) > 1:
            self._refuse(f"{name}() needs two momenta or two azimuths")
        return "number"

    def _note_further(self, owner: ast.expr, attr: str) -> None:
        """Note an attribute beside those of momenta: a branch of the collection, of one object."""
        match owner:
            case ast.Subscript(value=ast.Name(id=symbol)):
                private, misspelt = attr.startswith("_"), attr.lower() in ATTRIBUTES
                if not (private or misspelt):
                    names = self.further.setdefault(symbol, [])
                    names.extend([] if attr in names else [attr])
                    return
        hint = nearest(attr, ATTRIBUTES)
        self._refuse(f"a four-momentum has no attribute {attr!r}{hint}")

    def _note_planar(self, name: str) -> None:
        self.planar.extend([] if name in self.planar else [name])

    def _expect(self, node: ast.expr, kinds: Kind | tuple[Kind, ...], role: str) -> Kind:
        found = self._check(node)
        if found not in (kinds if isinstance(kinds, tuple) else (kinds,)):
            expected = " or ".join(kinds) if isinstance(kinds, tuple) else kinds
            self._refuse(f"{role} needs a {expected}, {ast.unparse(node)!r} is a {found}")
        return found

    # Evaluating: the tree has been checked.

    def _value(self, node: ast.expr, names: Namespace, cache: dict) -> Any:  # noqa: ANN401
        if isinstance(node, ast.Constant):
            number: Any = node.value
            return np.float64(number)  # which divides by zero as columns do
        key = ast.unparse(node)
        if key not in cache:
            cache[key] = self._fresh_value(node, names, cache)
        return cache[key]

    def _fresh_value(self, node: ast.expr, names: Namespace, cache: dict) -> Any:  # noqa: ANN401
        def value(child: ast.expr) -> Any:  # noqa: ANN401
            return self._value(child, names, cache)

        match node:
            case ast.Name(id=name):
                return names[name]
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=index)):
                return names[name][index]
            case ast.Attribute(
                value=ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=index)),
                attr=attr,
            ) if attr not in ATTRIBUTES:
                return names[f"{name}.{attr}"][index]
            case ast.Attribute(value=owner, attr=attr):
                return getattr(value(owner), attr)
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return np.logical_not(value(operand))
            case ast.UnaryOp(op=op, operand=operand):
                return -value(operand) if isinstance(op, ast.USub) else value(operand)
            case ast.Call(func=ast.Name(id=name), args=operands):
                if name in _OF_COLLECTIONS:
                    return names[ast.unparse(node)]
                function = (_OF_TWO.get(name) or _OF_NUMBERS[name])[0]
                return function(*map(value, operands))
            case ast.BoolOp(op=op, values=values):
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return reduce(combine, [value(part) for part in values])
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [self._finite(side, value(side)) for side in (left, *others)]
                parts = [
                    _COMPARE[type(op)](low, high)
                    for op, low, high in zip(ops, sides, sides[1:], strict=False)
                ]
                return reduce(np.logical_and, parts)
        return self._refuse(f"{ast.unparse(node)!r} is not in the language")

    def _finite(self, node: ast.expr, value: ArrayLike) -> ArrayLike:
        n_bad = int(np.count_nonzero(~np.isfinite(value)))
        if n_bad:
            msg = (
                f"selection {self.text!r}: {ast.unparse(node)!r} is not finite in "
                f"{counted(n_bad, 'event')}; expected numbers that can be compared. Drop those "
                "events by an earlier selection, e.g. ['a[0].pt > 1', ...]."
            )
            raise EventDataError(msg)
        return value


def _deeper_than(most: int, node: ast.AST) -> bool:
    """Return whether the parts of a sentence are nested more than `most` levels deep."""
    level = [node]
    for _ in range(most):
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
    return bool(level)
