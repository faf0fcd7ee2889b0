"""The mutants of a module: copies that differ from it in one small wrong thing.

A mutant is named by where it is and what it changes, not by a line number, so that its name outlives edits elsewhere.
"""

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
# Calls of which every argument is a condition: leaving one out widens what they let through.
_CONDITIONS = frozenset({"where", "and_", "or_"})
# Calls whose arguments are names for the inside alone.
_NAMING = frozenset({"NewType", "cte", "label", "subquery", "alias"})
# What only people read. A message may be put better without a test that fails.
_WORDS = frozenset({"message", "hint", "reason", "detail", "name"})
_LONGEST = 90


@dataclass(frozen=True)
class Mutant:
    """One wrong module."""

    name: str
    line: int
    code: CodeType


def mutants(source: str, filename: str) -> Iterator[Mutant]:
    """Every mutant of the source, in its order."""
    tree = ast.parse(source)
    seen: Counter[str] = Counter()
    for place, node, new in _changes(tree, "<module>"):
        name = f"{place}: {_short(node)} -> {_short(new)}"
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name} #{seen[name]}"
        wrong = ast.fix_missing_locations(_Replace(node, new).visit(tree))
        assert isinstance(wrong, ast.Module)  # noqa: S101  # for the type checker: the root is never replaced
        yield Mutant(label, node.lineno, compile(wrong, filename, "exec", dont_inherit=True))


class _Replace(ast.NodeTransformer):
    """A copy of the tree along the way to the node, with the other in its place."""

    def __init__(self, node: ast.AST, new: ast.AST) -> None:
        self._node = node
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._node:
            return ast.copy_location(self._new, node)
        mine = copy.copy(node)
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                setattr(mine, field, self.visit(value))
            elif isinstance(value, list):
                setattr(mine, field, [self.visit(item) if isinstance(item, ast.AST) else item for item in value])
        return mine


def _changes(node: ast.AST, place: str) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.expr | ast.stmt]]:
    """Changes of a node and of all below it, with the name of the function that holds them."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        place = node.name if place == "<module>" else f"{place}.{node.name}"
    if isinstance(node, ast.expr | ast.stmt):
        for new in _instead(node):
            yield place, node, new
    for child in _children(node):
        yield from _changes(child, place)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is code below a node: no docstring, annotation, decorator or words for people."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Call) and _called(node) in _NAMING:
        yield node.func
        return
    skipped = {"annotation", "returns", "decorator_list", "bases", "keywords" if isinstance(node, ast.ClassDef) else ""}
    for field, value in ast.iter_fields(node):
        if field in skipped:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not (isinstance(child, ast.keyword) and child.arg in _WORDS):
                yield child


def _instead(node: ast.expr | ast.stmt) -> list[ast.expr | ast.stmt]:
    operator = _OPERATORS.get(type(node))
    return list(operator(node)) if operator else []


def _compare(node: ast.Compare) -> Iterator[ast.expr]:
    for i, op in enumerate(node.ops):
        for other in _COMPARISONS[type(op)]:
            yield ast.Compare(node.left, [*node.ops[:i], other(), *node.ops[i + 1 :]], node.comparators)


def _bool_op(node: ast.BoolOp) -> Iterator[ast.expr]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for i in range(len(node.values)):
        left = [*node.values[:i], *node.values[i + 1 :]]
        yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)


def _bin_op(node: ast.BinOp) -> Iterator[ast.expr]:
    is_type = isinstance(node.op, ast.BitOr) and all(
        isinstance(side, ast.Name | ast.Constant) for side in (node.left, node.right)
    )
    if (other := _ARITHMETIC.get(type(node.op))) and not is_type:
        yield ast.BinOp(node.left, other(), node.right)


def _unary_op(node: ast.UnaryOp) -> Iterator[ast.expr]:
    yield node.operand


def _constant(node: ast.Constant) -> Iterator[ast.expr]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, str | bytes):
        yield ast.Constant(value + ("?" if isinstance(value, str) else b"?"))  # type: ignore[operator]


def _test(test: ast.expr) -> Iterator[ast.expr]:
    """A condition that is no comparison has no mutants of its own; let it hold always, and never."""
    if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
        yield ast.Constant(value=True)
        yield ast.Constant(value=False)


def _if(node: ast.If) -> Iterator[ast.stmt]:
    for test in _test(node.test):
        yield ast.If(test, node.body, node.orelse)


def _if_exp(node: ast.IfExp) -> Iterator[ast.expr]:
    for test in _test(node.test):
        yield ast.IfExp(test, node.body, node.orelse)


def _return(node: ast.Return) -> Iterator[ast.stmt]:
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield ast.Return(ast.Constant(None))


def _nothing(_: ast.stmt) -> Iterator[ast.stmt]:
    yield ast.Pass()


def _expression(node: ast.Expr) -> Iterator[ast.stmt]:
    if not isinstance(node.value, ast.Constant | ast.Yield):
        yield ast.Pass()


def _assign(node: ast.Assign) -> Iterator[ast.stmt]:
    """Leaving out what binds a name is an error that any test would meet; a change of state is not."""
    if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
        yield ast.Pass()


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _call(node: ast.Call) -> Iterator[ast.expr]:
    if _called(node) in _CONDITIONS:
        for i in range(len(node.args)):
            yield ast.Call(node.func, [*node.args[:i], *node.args[i + 1 :]], node.keywords)


_OPERATORS: dict[type[ast.AST], Callable[..., Iterator[ast.expr | ast.stmt]]] = {
    ast.Compare: _compare,
    ast.BoolOp: _bool_op,
    ast.BinOp: _bin_op,
    ast.UnaryOp: _unary_op,
    ast.Constant: _constant,
    ast.If: _if,
    ast.IfExp: _if_exp,
    ast.Return: _return,
    ast.Raise: _nothing,
    ast.AugAssign: _nothing,
    ast.Delete: _nothing,
    ast.Continue: _nothing,
    ast.Break: _nothing,
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.Call: _call,
}


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
