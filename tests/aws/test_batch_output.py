"""What a job prints, in pieces: bounded, in order, no letter cut in two."""

import os
import subprocess
import sys

import pytest
from batch_stand_in import REPOSITORY

from bigger_boat.resources.batch_output import LEFT_OUT, Stream


def test_a_letter_that_is_cut_by_a_piece_comes_whole(tmp_path):
    path = tmp_path / "stdout"
    stream = Stream(path, piece_bytes=4)
    assert stream.take() == ""
    path.write_bytes("a日本ü".encode())  # 1 + 3 + 3 + 2 bytes
    assert [stream.take() for _ in range(4)] == ["a日", "本", "ü", ""]


def test_what_comes_later_is_taken_later_and_what_is_no_letter_is_replaced(tmp_path):
    path = tmp_path / "stdout"
    stream = Stream(path)
    path.write_bytes(b"one\n")
    assert stream.take() == "one\n"
    with path.open("ab") as more:
        more.write(b"tw\xff\n")
    assert stream.take() == "tw\ufffd\n"
    assert stream.take() == ""


@pytest.mark.parametrize(("size", "taken"), [(9, "x" * 9), (10, "x" * 10), (11, "x" * 10 + LEFT_OUT)])
def test_more_than_may_go_home_is_left_out_and_that_is_said(tmp_path, size, taken):
    path = tmp_path / "stdout"
    stream = Stream(path, piece_bytes=4, most_bytes=10)
    path.write_bytes(b"x" * size)
    pieces = [stream.take() for _ in range(6)]
    assert "".join(pieces) == taken
    assert pieces[-1] == ""


CRASH = """
import os, pathlib, sys
from bigger_boat.resources.batch_output import Output
with Output(pathlib.Path(sys.argv[1])).caught():
    print("last words")
    os.abort()
"""


def test_the_last_words_before_a_crash_are_in_the_job_s_log(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", CRASH, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -6
    assert ended.stdout == "last words\n"
    assert (tmp_path / "stdout").read_text() == "last words\n"
