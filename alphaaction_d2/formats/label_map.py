"""Label maps: names, ids and groups of the action classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .ava_classes import AVA_CLASSES, AVA_GROUPS
from .tables import DataFileError, open_text
from .writing import write_atomically

# label_type of AVA's own label map -> the short names that tables and configs use
_GROUP_NAMES = {
    "PERSON_MOVEMENT": "pose",
    "OBJECT_MANIPULATION": "object",
    "PERSON_INTERACTION": "person",
}
LABEL_MAP = "label_map.pbtxt"  # of a data set, and of a trained model
_MAX_ID = 1 << 16  # an action id takes a place in every network's output
_EXAMPLE = 'item { name: "run" id: 1 }'


@dataclass(frozen=True)
class LabelMap:
    """Names and groups of the action classes, by action id (1-based, as in the files)."""

    names: dict[int, str]
    groups: dict[int, str]  # in lower case ("pose", "object", "person" for AVA), "" for none
    # Names of the groups whose classes exclude each other; None: the file is silent.
    exclusive: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        """The highest action id: ids in between that have no name still take a place."""
        return max(self.names)


def is_ava(label_map: LabelMap) -> bool:
    """Whether every id has the name that AVA gives it."""
    return all(
        i <= len(AVA_CLASSES) and AVA_CLASSES[i - 1] == name for i, name in label_map.names.items()
    )


def with_groups(label_map: LabelMap) -> LabelMap:
    """Add what AVA knows to a label map of AVA's classes: groups, which the 60-class list does not
    name, and that postures exclude each other."""
    if not is_ava(label_map):
        return label_map
    known = {i: AVA_GROUPS[i - 1] for i in label_map.names}
    groups = label_map.groups if any(label_map.groups.values()) else known
    exclusive = ("pose",) if label_map.exclusive is None else label_map.exclusive
    return replace(label_map, groups=groups, exclusive=exclusive)


def class_names(label_map: LabelMap) -> list[str]:
    """Name every category_id; ids that the label map leaves out have AVA's name or a number."""
    if is_ava(label_map):
        return list(AVA_CLASSES[: label_map.num_classes])
    return [label_map.names.get(i, f"class {i}") for i in range(1, label_map.num_classes + 1)]


def names_from_file(path: str | os.PathLike) -> list[str]:
    """Read the names of every category_id; see :func:`read_label_map`."""
    return class_names(read_label_map(path))


# -------------------------------------------------------------------------------------- writing


def write_label_map(path: str | os.PathLike, label_map: LabelMap, comment: str) -> None:
    """Write a label map that begins with a comment; a file without this comment is left alone."""
    first = f"# {comment}"
    try:
        if Path(path).read_text(encoding="utf-8").split("\n", 1)[0] != first:
            return
    except FileNotFoundError:
        pass
    lines = [first]
    for i, name in label_map.names.items():
        name, group = (re.sub(r'["\\]', r"\\\g<0>", x) for x in (name, label_map.groups.get(i, "")))
        more = " exclusive: true" if group in (label_map.exclusive or ()) else ""
        lines.append(f'item {{ name: "{name}" id: {i} label_type: "{group}"{more} }}')
    write_atomically(path, "\n".join(lines) + "\n")


# -------------------------------------------------------------------------------------- reading

_TOKEN = re.compile(
    r"""(?P<skip>(?:[\s,;]|\#[^\n]*)+)
      | (?P<open>(?:item|label)\s*\{)
      | (?P<close>\})
      | (?P<key>\w+)\s*:\s*(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'
            |[“”„][^“”\n]*[“”]|[‘’‚][^‘’\n]*[‘’]|[^\s"'{};,“”„]+)
    """,
    re.VERBOSE,
)

# what only the pbtxt form has: braces, or a key and a value in quotes
_IS_PBTXT = re.compile(r"""[{}]|^[ \t]*[^\W\d]\w*[ \t]*:[ \t]*["'“]""", re.MULTILINE)
# "1: stand", "1 stand", "1,stand", "1. stand"
_NUMBERED = re.compile(r"(\d+)(?:\s*[:.,;|)]\s*|\s+)(\S.*)")
_HEADER = r"\w*id|\w*name|class|label"
_QUOTED = re.compile("[“”„\"‘’‚'](.+)[“”\"‘’']")


def read_label_map(path: str | os.PathLike) -> LabelMap:
    """Read a label map in either of AVA's text forms, or a plain list of names.

    Both ``item { name: "..." id: 1 }`` (the 60 classes that are evaluated) and ``label { name:
    "..." label_id: 1 label_type: ... }`` (all 80) are understood, whatever their indentation and
    line ends. A plain list has one name a line, in the order of the ids from 1 on, or with the id
    before each name; a line ``[pose]`` starts a group, ``[pose, exclusive]`` one whose classes
    exclude each other (in the first form: ``exclusive: true``), and lines that begin with ``#`` are
    comments. So do a table with the header ``id,name`` and lists and dicts as json.

    Raises:
        DataFileError: with file and line, if the text is malformed, an entry has no name or id, an
            id or a name comes twice, an id is below 1, or there is no entry at all.
    """
    with open_text(path) as file:
        text = file.read()
    label_map = LabelMap({}, {})
    if re.match(r'\s*(\[\s*["{]|\{\s*")', text):
        entries = _json_entries(path, text)
    else:
        entries = (_entries if _IS_PBTXT.search(text) else _plain_entries)(path, text)
    names: set[str] = set()
    exclusive: dict[str, bool] = {}  # by group, of those that say it
    for line, entry in entries:
        group = _add_entry(label_map, names, f"{path}:{line}", entry)
        if "exclusive" in entry:
            said = entry["exclusive"].lower()
            if said not in ("true", "false"):
                what = f"exclusive {said[:80]!r}: expected true or false"
                raise DataFileError(f"{path}:{line}", what)
            exclusive[group] = exclusive.get(group, False) or said == "true"
    if not label_map.names:
        raise DataFileError(path, f"no classes found; expected entries like {_EXAMPLE}")
    if not exclusive:
        return label_map
    return replace(label_map, exclusive=tuple(group for group, x in exclusive.items() if x))


def _entries(path: object, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, keys and values) of the entries of a pbtxt."""
    entry: dict[str, str] | None = None
    entry_line = position = counted = 0
    line = 1
    while position < len(text):
        token = _TOKEN.match(text, position)
        line, counted = line + text.count("\n", counted, position), position
        where = f"{path}:{line}"
        if token is None:
            rest = text[position:].splitlines()[0].strip()[:80]
            raise DataFileError(where, f"{rest!r}: expected an entry like {_EXAMPLE}")
        position = token.end()
        if token["skip"]:
            continue
        if token["open"]:
            if entry is not None:
                raise DataFileError(where, f"the entry of line {entry_line} is not closed with }}")
            entry, entry_line = {}, line
        elif entry is None:
            what = f"{token[0].strip()!r} stands outside of item {{ }} or label {{ }}"
            raise DataFileError(where, what)
        elif token["close"]:
            yield entry_line, entry
            entry = None
        else:
            key = "id" if token["key"] == "label_id" else token["key"]
            if key in entry:
                what = f"a second {token['key']} in the entry of line {entry_line}: one entry for "
                raise DataFileError(where, f"{what}each class")
            entry[key] = _unquoted(token["value"])
    if entry is not None:
        raise DataFileError(f"{path}:{entry_line}", "this entry is not closed with }")


def _unquoted(value: str) -> str:
    if value[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value[1:-1].strip() if value[0] in "“”„‘’‚" else value


def _plain_entries(path: object, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, keys and values) of a list of names, with numbers before all of them or none."""
    lines = [(i, x) for i, x in enumerate(map(str.strip, text.splitlines()), 1) if x]
    lines = [(i, x) for i, x in lines if not x.startswith("#")]
    first = lines[0][1] if lines else ""
    header = re.fullmatch(rf"({_HEADER})[,;\t]({_HEADER})", first, re.I)
    swapped = header is not None and header[2].lower().endswith("id")
    lines = lines[1:] if header else lines
    names = [x for _, x in lines if not _is_group(x)]
    numbered = bool(names) and all(map(_NUMBERED.fullmatch, names))
    group, count = "", 0
    is_exclusive: dict[str, str] = {}
    for line, content in lines:
        if _is_group(content):
            group, comma, said = map(str.strip, content[1:-1].partition(","))
            if comma and said.lower() != "exclusive":
                what = f"{content[:80]!r}: expected a group like [pose] or [pose, exclusive]"
                raise DataFileError(f"{path}:{line}", what)
            is_exclusive = {"exclusive": "true"} if comma else {}
            continue
        count += 1
        number, name = str(count), content
        found = _NUMBERED.fullmatch(content)
        if swapped:
            found = re.fullmatch(r"(.*\S)\s*[,;\t]\s*(\d+)", content)
            name, number = found.groups() if found else (content, "")
        elif numbered and found:
            number, name = found.groups()
        elif found or content.isdigit() or re.fullmatch(r".*[,;\t]\s*\d+", content):
            what = f"{content[:80]!r}: expected names only, in the order of their ids, a number "
            raise DataFileError(f"{path}:{line}", f"{what}before each, or entries like {_EXAMPLE}")
        quoted = _QUOTED.fullmatch(name)
        name = quoted[1] if quoted else name
        yield line, {"name": name, "id": number, "label_type": group, **is_exclusive}


def _is_group(line: str) -> bool:
    return line.startswith("[") and line.endswith("]")


def _json_entries(path: object, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the entries of a list of names, of {"id": ., "name": .}, or a dict, as json."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataFileError(path, f"not a json file ({str(error)[:100]})") from None
    pairs: Any = content.items() if isinstance(content, dict) else enumerate(content, 1)
    for key, value in pairs:
        if isinstance(value, dict):
            key, value = value.get("id", key), value.get("name")
        if isinstance(value, int) and isinstance(key, str):
            key, value = value, key
        yield 1, {"name": value if isinstance(value, str) else "", "id": str(key)[:99]}


def _add_entry(label_map: LabelMap, names: set[str], where: str, entry: dict[str, str]) -> str:
    """Add an entry to names and groups; its group."""
    for key, other in (("name", "name"), ("id", "id or label_id")):
        if not entry.get(key):
            raise DataFileError(where, f"this entry has no {other}")
    name, id_text = entry["name"], entry["id"]
    try:
        action_id = int(id_text)
    except ValueError:
        action_id = 0
    if not 1 <= action_id <= _MAX_ID:
        what = f"id {id_text[:80]!r}: expected a whole number from 1 on, {_MAX_ID} at most"
        raise DataFileError(where, what)
    if action_id in label_map.names:
        taken = label_map.names[action_id]
        raise DataFileError(where, f"id {action_id} is taken by {taken!r} already")
    if name in names:
        raise DataFileError(where, f"name {name!r} is used twice")
    names.add(name)
    group = entry.get("label_type", "")
    label_map.names[action_id] = name
    label_map.groups[action_id] = _GROUP_NAMES.get(group, group.lower())
    return label_map.groups[action_id]
