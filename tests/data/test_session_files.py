"""Clicks in session-rec's and the challenge's format: what is read, and what bad files are told."""

import gzip

import pytest

from bigger_boat.data.session_files import read_sessions
from bigger_boat.errors import DatasetError

HEADER = "SessionId\tItemId\tTime\n"


def written(tmp_path, text, name="clicks.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path) -> str:
    with pytest.raises(DatasetError) as caught:
        read_sessions(path)
    assert caught.value.hint
    return caught.value.message


def test_clicks_are_put_in_order_and_sessions_by_their_last_click(tmp_path):
    rows = "2\tc\t50.5\n1\tb\t20\n1\ta\t10\n2\tb\t15\n1\tb\t30\n"
    sessions = read_sessions(written(tmp_path, HEADER + rows))
    assert sessions.items == [["a", "b", "b"], ["b", "c"]]
    assert sessions.ended_s.tolist() == [30.0, 50.5]
    assert (len(sessions), sessions.clicks) == (2, 5)
    assert sessions.part(1, None).items == [["b", "c"]]


def test_clicks_of_equal_time_keep_the_order_of_the_file(tmp_path):
    rows = "".join(f"s\tp{n}\t5\n" for n in (3, 1, 2))
    assert read_sessions(written(tmp_path, HEADER + rows)).items == [["p3", "p1", "p2"]]


@pytest.mark.parametrize(
    "text",
    [
        "SessionId,ItemId,Time\n1,007,1592337718.0\n1,8,1592337765\n",
        "Time;SessionId;ItemId;more\n1592337718000;1;007;x\n1592337765000;1;8;\n",
        '\ufeff"sessionid"\t"itemid"\t"TIME"\r\n1\t"007"\t1592337718\r\n1\t 8 \t1592337765\r\n',
    ],
    ids=["commas", "milliseconds", "byte order mark and quotes"],
)
def test_separators_units_and_order_of_columns_may_differ(tmp_path, text):
    sessions = read_sessions(written(tmp_path, text))
    assert sessions.items == [["007", "8"]]
    assert sessions.ended_s.tolist() == [1592337765.0]


CHALLENGE = (
    "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url\n"
    "s1,event_product,detail,a,1592337718000,u\n"
    "s1,pageview,,,1592337718000,u\n"
    "s1,event_product,add,a,1592337719000,u\n"
    "s2,event_product,detail,b,1592337710000,u\n"
    "s1,event_product,detail,b,1592337720000,u\n"
)


def test_of_the_challenges_events_details_are_clicks(tmp_path):
    written(tmp_path, CHALLENGE, "browsing_train.csv")
    sessions = read_sessions(tmp_path)
    assert sessions.items == [["b"], ["a", "b"]]
    assert sessions.ended_s.tolist() == [1592337710.0, 1592337720.0]
    packed = written(tmp_path, gzip.compress(CHALLENGE.encode()), "copy.csv.gz")
    assert read_sessions(packed).items == sessions.items


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        (HEADER, "holds no clicks"),
        ("SessionId\tTime\n1\t2\n", "has the columns SessionId, Time"),
        (HEADER + "1\ta\t5\n1\t\t6\n", "line 3: no item"),
        (HEADER + "\ta\t5\n", "line 2: no session"),
        (HEADER + "1\ta\t5\n1\ta\n", "line 3: no time"),
        (HEADER + "1\ta\t5\n1\tb\tnoon\n", "line 3: a time that is no number"),
        (HEADER + "1\ta\tnan\n", "line 2: a time that is no number"),
        (HEADER + "1\ta\t-5\n", "line 2: a time that is no number"),
        (HEADER + "1\ta\t5\n1\tb\t6\t7\n", "cannot be read"),
        (HEADER.encode() + b"1\t\xff\xfe\t5\n", "cannot be read"),
        (CHALLENGE + "s1,event_product,detail,,1592337720000,u\n", "line 7: no item"),
    ],
)
def test_a_bad_file_is_told_what_where_and_what_to_do(tmp_path, text, expected):
    path = written(tmp_path, text)
    message = refusal(path)
    assert str(path) in message
    assert expected in message


def test_what_is_no_file_of_clicks_is_told_so(tmp_path):
    assert "There is no" in refusal(tmp_path / "nothing.txt")
    assert "without browsing_train.csv" in refusal(tmp_path)
    assert "cannot be read" in refusal(written(tmp_path, b"\x1f\x8b\x08 torn", "clicks.csv.gz"))
    torn = gzip.compress((HEADER + "1\ta\t5\n" * 5_000).encode())[:-40]
    assert "cannot be read" in refusal(written(tmp_path, torn, "torn.csv.gz"))
