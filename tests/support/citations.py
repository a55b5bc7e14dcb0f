"""What a test can assert, read from its source: the constants in it and in whatever of its file it uses."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class CitedTest:
    """A test function and what stands beside it at the top of its file."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    beside: dict[str, ast.stmt]

    @property
    def table(self) -> ast.Dict | None:
        """The table of cases by name that the test is parametrized with."""
        for decorator in self.node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.parametrize":
                found = self.beside.get(ast.unparse(decorator.args[1]))
                if isinstance(found, ast.Assign | ast.AnnAssign) and isinstance(found.value, ast.Dict):
                    return found.value
        return None

    def case(self, name: str) -> ast.expr | None:
        """The row of the table that is called `name`."""
        assert self.table is not None
        for key, value in zip(self.table.keys, self.table.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == name:
                return value
        return None

    def constants(self, case: str | None = None) -> set[Any]:
        """Every constant in the test and in what it uses; of its table's rows only the one called `case`."""
        seen: set[str] = set()
        todo: list[ast.AST] = [self.node]
        found: set[Any] = set()
        if case is not None:
            row = self.case(case)
            assert row is not None, f"{self.node.name} has no case {case!r}"
            todo.append(row)
        while todo:
            for part in self._parts(todo.pop()):
                if isinstance(part, ast.Constant):
                    found.add(part.value)
                name = part.id if isinstance(part, ast.Name) else part.arg if isinstance(part, ast.arg) else ""
                if name in self.beside and name not in seen:
                    seen.add(name)
                    todo.append(self.beside[name])
        return found

    def _parts(self, node: ast.AST) -> Iterator[ast.AST]:
        """`node` and all in it, but not the table: its rows are each for itself."""
        if node is self.table:
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from self._parts(child)


@cache
def tests_by_name() -> dict[str, list[CitedTest]]:
    """Every test of the suite; two files may have one of the same name."""
    found: defaultdict[str, list[CitedTest]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        body = list(_statements(ast.parse(path.read_text(encoding="utf-8")).body))
        beside = {name: statement for statement in body for name in _names(statement)}
        for name, node in beside.items():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and name.startswith("test_"):
                found[name].append(CitedTest(node, beside))
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, also inside an `if`."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements(statement.body)
        else:
            yield statement


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return []
