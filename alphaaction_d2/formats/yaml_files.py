"""Small YAML files of plain values: nothing in them is built or called, and the work is bounded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 18  # a configuration with all of its keys has a tenth of that
MAX_DEPTH = 50
MAX_VALUES = 100_000  # with everything that aliases repeat

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it was built


class YAMLFileError(ValueError):
    """A YAML file that cannot be used: file, line, what is wrong. One line."""


class _PlainLoader(_Loader):  # type: ignore[valid-type,misc]  # one of two classes
    """Numbers, texts, lists and mappings; what looks like a date stays a text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_yaml(path: str | os.PathLike) -> Any:
    """Read a YAML file of plain values.

    Nothing that a tag names is built or called. The work is bounded: a file that is large, nested
    deeply or multiplied by aliases is refused before its values are made.

    Raises:
        YAMLFileError: with file, line and reason.
    """
    data = Path(path).read_bytes()
    if len(data) > MAX_BYTES:
        raise YAMLFileError(f"{path}: {len(data):,} bytes; expected {MAX_BYTES:,} at most")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YAMLFileError(f"{path}: not a text file (expected UTF-8: {error.reason})") from None
    try:
        _check_depth(path, text)
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(path, node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise YAMLFileError(_describe(path, text, error)) from None
    except (yaml.YAMLError, ValueError) as error:  # unprintable characters, numbers out of range
        if isinstance(error, YAMLFileError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise YAMLFileError(f"{path}: not a YAML file ({reason})") from None


def _describe(path: str | os.PathLike, text: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = str(path) if mark is None else f"{path}:{mark.line + 1}"
    problem = error.problem or error.context or "not YAML"
    lines = text.split("\n")
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""  # or its end
    if "cannot start any token" in problem and "\t" in line:
        problem = "a tab: indent with spaces"
    elif problem.startswith("could not determine a constructor for the tag"):
        tag = problem.partition("'")[2].rstrip("'")
        problem = f"{tag[:80]}: only plain values are read, nothing is built or called"
    return f"{where}: {problem}"


def _check_depth(path: str | os.PathLike, text: str) -> None:
    """Refuse deep nesting before anything recursive meets it."""
    depth = 0
    for event in yaml.parse(text, Loader=_PlainLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1
                raise YAMLFileError(f"{path}:{line}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_nodes(path: str | os.PathLike, root: yaml.Node) -> None:
    """Refuse keys that come twice, and aliases that hold themselves or multiply.

    An alias is the very node it repeats, so sizes are computed once a node.
    """
    sizes: dict[int, int | None] = {}  # None while a node is being looked at

    def size_of(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                line = node.start_mark.line + 1
                raise YAMLFileError(f"{path}:{line}: an alias that holds itself")
            return known
        sizes[id(node)] = None
        size = 1
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise YAMLFileError(f"{path}:{line}: {key.value[:80]!r} comes twice")
                    seen.add(key.value)
                size += size_of(key) + size_of(value)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(map(size_of, node.value))
        if size > MAX_VALUES:
            line = node.start_mark.line + 1
            raise YAMLFileError(f"{path}:{line}: more than {MAX_VALUES:,} values, with its aliases")
        sizes[id(node)] = size
        return size

    size_of(root)
