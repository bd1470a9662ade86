"""What is put beside main's has a name that the file system takes, however long the one was that it should have had."""

from __future__ import annotations

from pathlib import Path

import pytest

from isofs.engine import checks, tree
from support.contest import Contest

#: Of most file systems, and of eCryptfs.
LIMITS = (255, 143)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("character", ["n", "ü", "€", "\N{GRINNING FACE}", "\udcff"])
def test_a_name_is_cut_between_characters(
    tmp_path: Path, limit: int, character: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = Contest(tmp_path / "main", {})
    assert tree.longest_name(contest.fs) == 255
    monkeypatch.setattr(tree, "longest_name", lambda fs: limit)
    width = len(character.encode(errors="surrogateescape"))
    path = character * (limit // width)
    for user, content in ((contest.suspects["alice"], b"hers"), (contest.bob, b"his")):
        contest.write(user, content, path)
    planned = contest.planned()
    (item,) = contest.innocent().items
    assert [one.aside for one in planned] == [item.aside]
    assert item.aside is not None
    kept = item.aside.removesuffix(b".isofs-alice")
    assert kept == character.encode(errors="surrogateescape") * (len(kept) // width)
    assert limit - width < len(item.aside) <= limit
    assert sorted(contest.main().values()) == [b"hers", b"his"]
    assert not checks.check(contest.fs)
    contest.close()
