"""Ids of videos as names of files."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphaaction_d2.formats.names import MAX_BYTES, file_name

HOSTILE = [
    *("", ".", "..", "...", " ", "../../secret", "/etc/passwd", "a/b", "a\\b", "C:\\x", "C:x"),
    *(".hidden", "two\nlines", "a\0b", "\x1b[31m", "caf\udce9", "x" * 300, "\u00fc" * 150),
    *("a ", "a.", "a.0123456789abcdef", "\u202egnp.exe"),
]


@pytest.mark.parametrize("name", ["-5KQ66BBWC4", "clip 1", "Caf\u00e9", "v_a.b_c", "a.mp4", "0902"])
def test_ordinary_ids_stay(name):
    assert file_name(name) == name


def test_what_is_changed_is_still_recognised():
    assert file_name("../../secret").startswith("_.._secret.")
    assert file_name("two\nlines").startswith("two_lines.")
    assert file_name("") == "video.e3b0c44298fc1c14"


@given(
    st.lists(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=9))
)
def test_names_stay_in_their_folder_and_apart(tmp_path_factory, ids):
    folder = tmp_path_factory.getbasetemp()
    names = {video: file_name(video, reserved=["taken"]) for video in [*ids, *HOSTILE, "taken"]}
    assert len(set(names.values())) == len(names)
    for name in names.values():
        assert 0 < len(os.fsencode(name)) <= MAX_BYTES and name.isprintable()
        assert os.path.dirname(os.path.normpath(folder / name)) == str(folder)
        assert name[0] not in ". " and name != "taken" and not set(name) & set("/\\:")
        assert file_name(name) != name or name in names, "nobody else's id is a changed name"
