"""Files are whole or absent, whoever else writes them, and however full the disk is."""

from __future__ import annotations

import errno
import multiprocessing
import resource
import subprocess
import sys

import pytest
import torch

from alphaaction_d2.formats.writing import only_writer, write_atomically


def _write_often(path, letter: str) -> None:
    for _ in range(50):
        write_atomically(path, letter * 100_000)


def test_two_processes_never_mix_what_they_write(tmp_path):
    path = tmp_path / "x"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_often, args=(path, x)) for x in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert path.read_text() in ("a" * 100_000, "b" * 100_000)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_used_up(tmp_path):
    (tmp_path / ".x.partial").write_bytes(b"a longer text than the new one")
    write_atomically(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new" and not (tmp_path / ".x.partial").exists()


@pytest.mark.parametrize("content", [bytes(1 << 20), torch.zeros(1 << 18)])
def test_a_full_disk_names_the_file(tmp_path, content):
    """A limit on the size of files stands in for the disk: both fail while writing."""
    path = tmp_path / "x"
    path.write_bytes(b"before")
    write = content if isinstance(content, bytes) else lambda file: torch.save(content, file)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="x'$") as error:
            write_atomically(path, write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_of_results_belongs_to_one_run(tmp_path):
    code = "import sys; from alphaaction_d2.formats.writing import only_writer\n"
    code += "with only_writer(sys.argv[1]): print('mine')"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with only_writer(tmp_path):
        other = subprocess.run(command, capture_output=True, text=True)
        assert other.returncode and "another run writes into this folder" in other.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == "mine\n"
