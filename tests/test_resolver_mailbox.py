"""Mailboxes: no message lost, none doubled, and the bytes of untouched ones as they were."""

from __future__ import annotations

import itertools
import mailbox
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofs.merge.resolvers import maildirs
from isofs.merge.resolvers.base import Merged, Unresolved
from isofs.merge.resolvers.mailfiles import FORMATS
from support.merging import FLAGGED, KINDS, letter, merge, merged, subjects, written

every_kind = pytest.mark.parametrize("kind", KINDS)


def _messages(kind: str, content: bytes) -> list[bytes]:
    form = next(form for form in FORMATS if form.name == kind)
    box = form.read(content)
    assert box is not None
    return [message.raw for message in box.messages]


def _box(kind: str, *numbers: object, start: bytes = b"") -> bytes:
    return written(kind, [letter(number) for number in numbers], start)


@every_kind
def test_what_is_read_is_every_byte_and_what_the_standard_library_reads(kind: str) -> None:
    content = _box(kind, *range(5))
    assert b"".join(_messages(kind, content)) in content
    assert len(_messages(kind, content)) == len(subjects(kind, content)) == 5


@every_kind
def test_additions_are_united_and_deletions_stand(kind: str) -> None:
    base = _box(kind, 1, 2, 3, 4)
    main, suspect = _box(kind, 1, 3, 4, "m"), _box(kind, 1, 2, 4, "s")
    content = merged("mailbox", base, main, suspect)
    assert subjects(kind, content) == ["1", "4", "m", "s"]
    untouched = Counter(raw.rstrip() for raw in _messages(kind, content))
    assert untouched <= Counter(raw.rstrip() for raw in _messages(kind, main) + _messages(kind, suspect))


@every_kind
def test_new_messages_stay_behind_those_that_they_followed(kind: str) -> None:
    base = _box(kind, 1, 2)
    content = merged("mailbox", base, _box(kind, 1, 2, "m"), _box(kind, "first", 1, "between", 2, "last"))
    assert subjects(kind, content) == ["first", "1", "between", "2", "m", "last"]


@every_kind
def test_a_mailbox_that_main_emptied(kind: str) -> None:
    base = _box(kind, 1, 2)
    assert subjects(kind, merged("mailbox", base, b"", _box(kind, 1, 2, "s"))) == ["s"]
    assert subjects(kind, merged("mailbox", b"", _box(kind, "m"), _box(kind, "s"))) == ["m", "s"]


@every_kind
def test_messages_without_an_id_are_known_by_content(kind: str) -> None:
    def box(*bodies: str) -> bytes:
        return written(kind, [letter("none", body, id=None) for body in bodies])

    base = box("a\n", "b\n", "b\n", "c\n")
    content = merged("mailbox", base, box("a\n", "b\n", "c\n", "m\n"), box("b\n", "b\n", "c\n", "s\n", "s\n"))
    bodies = [raw.rstrip(b"\n\x1f\1").rpartition(b"\n")[2] for raw in _messages(kind, content)]
    assert bodies == [b"b", b"c", b"m", b"s", b"s"]


@every_kind
def test_a_repeated_id_does_not_hide_a_message(kind: str) -> None:
    def box(*bodies: str) -> bytes:
        return written(kind, [letter(body.strip(), body, id="<same@example.org>") for body in bodies])

    base = box("a\n", "b\n")
    assert subjects(kind, merged("mailbox", base, box("a\n", "b\n", "m\n"), box("b\n", "s\n"))) == ["b", "m", "s"]


@every_kind
def test_both_contents_of_one_id_stay(kind: str) -> None:
    main, suspect = written(kind, [letter(1, "mine\n")]), written(kind, [letter(1, "theirs\n")])
    proposal = merge("mailbox", _box(kind, 1), main, suspect)
    assert isinstance(proposal, Merged)
    assert proposal.review
    assert proposal.content.count(b"mine\n") == proposal.content.count(b"theirs\n") == 1


@every_kind
def test_a_message_that_was_changed_survives_its_deletion(kind: str) -> None:
    base = _box(kind, 1, 2)
    changed = written(kind, [letter(1), letter(2, "changed\n")])
    for main, suspect in ((_box(kind, 1), changed), (changed, _box(kind, 1, "s"))):
        proposal = merge("mailbox", base, main, suspect)
        assert isinstance(proposal, Merged)
        assert proposal.review
        assert b"changed\n" in proposal.content


def test_the_way_that_a_message_came_does_not_make_it_two() -> None:
    main, suspect = (
        written("mbox", [letter(1), letter("new", Received=f"by {way} at noon", Delivered_To=way)])
        for way in ("list", "direct")
    )
    assert subjects("mbox", merged("mailbox", _box("mbox", 1), main, suspect)) == ["1", "new"]


def test_without_a_base_nothing_is_deleted() -> None:
    proposal = merge("mailbox", None, _box("mbox", 1, 2), _box("mbox", 2, 3))
    assert isinstance(proposal, Merged)
    assert proposal.review
    assert sorted(subjects("mbox", proposal.content)) == ["1", "2", "3"]


def test_flags_are_merged_flag_by_flag() -> None:
    def box(status: str, x_status: str, mozilla: str, keywords: str) -> bytes:
        fields = {"Status": status, "X_Status": x_status, "X_Mozilla_Status": mozilla, "X_Keywords": keywords}
        return written("mbox", [letter(1, **{name: value for name, value in fields.items() if value}), letter(2)])

    base = box("O", "F", "0002", "red blue")
    main, suspect = box("RO", "AF", "0003", "red blue green"), box("O", "", "0012", "blue")
    content = merged("mailbox", base, main, suspect)
    fields = content[: content.index(b"\n\n")].split(b"\n")
    for line in (b"Status: RO", b"X-Status: A", b"X-Mozilla-Status: 0013", b"X-Keywords: blue green"):
        assert line in fields
    assert _messages("mbox", content)[1] == _messages("mbox", main)[1]


@pytest.mark.parametrize("kind", FLAGGED)
def test_flags_that_mail_programs_set(kind: str, tmp_path: Path) -> None:
    def flagged(name: str, *marks: tuple[int, str]) -> bytes:
        path = tmp_path / name
        path.write_bytes(_box(kind, 0, 1, 2))
        box = FLAGGED[kind](path)
        keys = box.keys()
        for at, mark in marks:
            one = box[keys[at]]
            one.add_flag(mark)
            box[keys[at]] = one
        box.close()
        return path.read_bytes()

    base = flagged("base", (2, "R"))
    content = merged("mailbox", base, flagged("main", (2, "R"), (0, "R")), flagged("suspect", (0, "A"), (1, "R")))
    (tmp_path / "merged").write_bytes(content)
    box = FLAGGED[kind](tmp_path / "merged")
    assert [set(one.get_flags()) for one in box] == [{"R", "A"}, {"R"}, set()]


def test_labels_of_babyl_files() -> None:
    def labelled(*labels: bytes) -> bytes:
        parts = _box("Babyl", *range(len(labels))).split(b"\n1,,\n")
        lines = [b"\n1" + label + b"\n" for label in labels]
        return b"".join(itertools.chain(*zip(parts, [*lines, b""], strict=True)))

    base = labelled(b", unseen,, red,", b", unseen,,", b",,")
    main = labelled(b",, red,", b", unseen,, todo,", b",,")
    suspect = labelled(b", unseen, answered,, red, blue,", b",,", b",,")
    expected = labelled(b", answered,, red, blue,", b",, todo,", b",,")
    assert merged("mailbox", base, main, suspect) == expected


# --- mbox, in its dialects

ENVELOPE = b"From bob@example.org Wed May  1 10:00:00 2024\n"


def _plain(number: int, body: bytes = b"text\n", fields: bytes = b"") -> bytes:
    return ENVELOPE + b"Message-ID: <%d@x>\nSubject: letter %d\n%b\n%b\n" % (number, number, fields, body)


def test_from_in_a_body_is_text_if_quoted_or_without_a_date() -> None:
    bodies = [
        b"a\n\n>From here on\n",
        b"a\n\n>From bob Wed May  1 10:00:00 2024\n",
        b"a\n\nFrom here on\n",
        b"From bob@x\n",
    ]
    for body in bodies:
        base = _plain(1, body) + _plain(2)
        assert len(_messages("mbox", base)) == 2
        content = merged("mailbox", base, base + _plain(3), _plain(1, body) + _plain(4))
        assert content == _plain(1, body) + _plain(3) + _plain(4)


def test_content_length_says_where_an_unquoted_message_ends() -> None:
    body = b"forwarded:\n\nFrom eve Wed May  1 10:00:00 2024\nSubject: x\n\ninner\n"
    one = _plain(1, body, b"Content-Length: %d\n" % len(body))
    assert len(_messages("mbox", one + _plain(2))) == 2
    content = merged("mailbox", one + _plain(2), one + _plain(2) + _plain(3), one)
    assert content == one + _plain(3)
    wrong = _plain(1, b"short\n", b"Content-Length: 30\n")
    assert len(_messages("mbox", wrong + _plain(2))) == 2


def test_cr_lf_and_a_missing_last_line_end() -> None:
    base, m, s = (part.replace(b"\n", b"\r\n") for part in (_plain(1), _plain(2), _plain(3)))
    assert merged("mailbox", base, base + m, base + s) == base + m + s
    assert merged("mailbox", base, base + m[:-2], base + s) == base + m + s
    assert merged("mailbox", _plain(1), _plain(1) + _plain(2)[:-2], _plain(1) + _plain(3)[:-2]) == (
        _plain(1) + _plain(2) + _plain(3)[:-2]
    )


def test_what_is_no_mailbox_is_refused() -> None:
    for suspect in (b"From here on it is prose\n", b"text\n", b"\1\1\1\1\nopen", b"BABYL OPTIONS:\nnever ends"):
        assert isinstance(merge("mailbox", _plain(1), _plain(1) + _plain(2), suspect), Unresolved)


numbers = st.lists(st.integers(0, 9), unique=True, max_size=6)


@every_kind
@settings(max_examples=40)
@given(numbers, numbers, numbers)
def test_the_union_less_the_deletions(kind: str, base: list[int], main: list[int], suspect: list[int]) -> None:
    start, ours, hers = (_box(kind, *side) for side in (base, main, suspect))
    found = subjects(kind, merged("mailbox", start, ours, hers))
    old, mine, theirs = set(base), set(main), set(suspect)
    assert sorted(found) == sorted(map(str, (mine & theirs) | (mine - old) | (theirs - old)))
    if mine != theirs and old not in (mine, theirs):
        assert [n for n in map(int, found) if n in mine] == [n for n in main if str(n) in found]


def test_the_order_of_verdicts_does_not_change_what_is_there() -> None:
    base = _box("mbox", 1, 2, 3)
    sides = [_box("mbox", 1, 2, 3, "a"), _box("mbox", 2, 3, "b"), _box("mbox", 1, 2, "c", "d")]
    ends = set()
    for first, second, third in itertools.permutations(sides):
        content = merged("mailbox", base, merged("mailbox", base, first, second), third)
        ends.add(tuple(sorted(subjects("mbox", content))))
    assert ends == {("2", "a", "b", "c", "d")}


# --- directories


def _maildir(place: Path, *marks: tuple[str, str]) -> list[bytes]:
    box = mailbox.Maildir(place)
    for number, flags in marks:
        one = mailbox.MaildirMessage(letter(number))
        if flags != "new":
            one.set_subdir("cur")
            one.set_flags(flags)
        key = box.add(one)
        found = next(path for path in place.glob(f"*/{key}*"))
        found.rename(found.parent / found.name.replace(key, f"{number}.host"))
    return [str(path.relative_to(place)).encode() for path in place.glob("[cn]*/*")]


def test_maildirs_are_united_by_name_with_their_flags(tmp_path: Path) -> None:
    base = _maildir(tmp_path / "base", ("1", "new"), ("2", "S"), ("3", "S"), ("4", "F"))
    main = _maildir(tmp_path / "main", ("1", "S"), ("2", "RS"), ("4", ""), ("5", "new"))
    suspect = _maildir(tmp_path / "suspect", ("1", "new"), ("2", ""), ("3", "FS"), ("4", "FS"), ("6", "S"))
    kept = maildirs.unite(base, main, suspect)
    assert sorted((one.source, one.path, one.becomes) for one in kept) == [
        ("main", b"cur/1.host:2,S", b"cur/1.host:2,S"),
        ("main", b"cur/2.host:2,RS", b"cur/2.host:2,R"),
        ("main", b"cur/4.host:2,", b"cur/4.host:2,S"),
        ("main", b"new/5.host", b"new/5.host"),
        ("suspect", b"cur/6.host:2,S", b"cur/6.host:2,S"),
    ]


flagged = st.dictionaries(st.sampled_from("abcd"), st.sets(st.sampled_from("FRS")))


@given(st.tuples(flagged, flagged, flagged))
def test_a_maildir_loses_and_doubles_nothing(sides: tuple[dict[str, set[str]], ...]) -> None:
    names = [[f"cur/{one}:2,{''.join(sorted(flags))}".encode() for one, flags in side.items()] for side in sides]
    old, mine, theirs = map(set, sides)
    kept = [maildirs.entry(one.becomes) for one in maildirs.unite(*names)]
    uniques = [one.unique.decode() for one in kept if one is not None]
    assert sorted(uniques) == sorted((mine & theirs) | (mine - old) | (theirs - old))
    for paths in names:
        assert sorted(one.becomes for one in maildirs.unite(paths, paths, names[2])) == sorted(names[2])


def test_an_mh_folder(tmp_path: Path) -> None:
    box = mailbox.MH(tmp_path / "mh")
    for number in range(1, 5):
        box.add(letter(number))
    box.set_sequences({"unseen": [2, 3, 4], "flagged": [1]})
    base = (tmp_path / "mh" / ".mh_sequences").read_bytes()
    box.add(letter("main's 5"))
    box.set_sequences({"unseen": [3, 4, 5], "flagged": [1]})
    main = (tmp_path / "mh" / ".mh_sequences").read_bytes()
    renumbered = maildirs.renumber([b"%d" % n for n in range(1, 6)] + [b".mh_sequences"], [b"5", b"6", b"x"])
    assert renumbered == {b"5": b"7"}
    suspect = b"unseen: 2-3 5-6\nflagged: 1 5\n"
    assert (
        maildirs.merge_sequences(base, main, maildirs.renumbered(suspect, renumbered))
        == b"unseen: 3 5-7\nflagged: 1 7\n"
    )


@given(*(st.binary(max_size=40) for _ in range(3)))
def test_any_names_and_sequences_are_read(base: bytes, main: bytes, suspect: bytes) -> None:
    maildirs.merge_sequences(base, main, b"a: 1-9999999999999 " + suspect)
    maildirs.unite([base], [b"cur/" + main], [b"new/" + suspect])
