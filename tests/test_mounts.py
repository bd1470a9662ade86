"""Which mount a command means, told without ever waiting for a daemon."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import dead_mount
from isofs.control import mounts
from isofs.control.mounts import Mount
from isofs.errors import NoMount

TABLE = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:50 / /srv/share rw,nosuid - fuse.isofs /srv/share/.isofs rw,user_id=0
41 22 0:51 / /srv/a\040b\011c\012d\134e rw shared:3 master:1 - fuse.isofs s\040t rw
43 22 0:50 / /bind rw - fuse.isofs /srv/share/.isofs rw
39 22 0:50 /sub /part rw - fuse.isofs /srv/share/.isofs rw
44 22 0:53 / /srv/other rw - fuse.sshfs host rw
45 22 0:54 / /srv/cr""" + (b"\r\xff rw shared:1 - fuse.isofs x rw\n")


def test_the_table_is_understood_with_its_escapes() -> None:
    assert mounts.parse(TABLE) == [
        Mount("/srv/share", "/srv/share/.isofs"),
        Mount("/srv/a b\tc\nd\\e", "s t"),
        Mount("/srv/cr\r\udcff", "x"),
    ]


def test_this_machine_has_a_table() -> None:
    assert isinstance(mounts.mounted(), list)


def test_a_socket_is_named_by_the_real_path() -> None:
    # printf /srv/share | sha256sum
    assert mounts.socket_for("/srv/share") == "/run/isofs/e574eca23522d9fb.sock"
    assert mounts.socket_for("/srv/\udcff") != mounts.socket_for("/srv/\udcfe")


SHARE, INNER, OTHER = Mount("/srv/share", ""), Mount("/srv/share/inner", ""), Mount("/data", "")


@pytest.mark.parametrize(
    ("cwd", "found", "expected"),
    [
        ("/", [SHARE], "/srv/share"),
        ("/srv/share", [SHARE, OTHER], "/srv/share"),
        ("/srv/share/deep/er", [OTHER, SHARE], "/srv/share"),
        ("/srv/share/gone (deleted)", [OTHER, SHARE], "/srv/share"),
        ("/srv/share/inner/x", [SHARE, INNER], "/srv/share/inner"),
        ("/srv/share/inner/x", [INNER, SHARE], "/srv/share/inner"),
        ("/srv/share/innermost", [INNER, SHARE], "/srv/share"),
        ("/home", [SHARE, SHARE], "/srv/share"),
    ],
)
def test_the_mount_around_or_the_only_one(cwd: str, found: list[Mount], expected: str) -> None:
    assert mounts.choose(None, cwd, found) == expected


def test_the_mount_named_comes_before_the_one_around() -> None:
    assert mounts.choose("/data/", "/srv/share", [SHARE, OTHER]) == "/data"


def test_no_mount_says_how_to_make_one() -> None:
    with pytest.raises(NoMount, match="isoctl mount DIR"):
        mounts.choose(None, "/", [])
    with pytest.raises(NoMount, match="isoctl mount /nowhere"):
        mounts.choose("/nowhere", "/srv/share", [SHARE])
    with pytest.raises(NoMount, match="/srv/share/sub"):
        mounts.choose("/srv/share/sub", "/srv/share", [SHARE])


def test_several_mounts_are_named() -> None:
    with pytest.raises(NoMount, match="--mount DIR: /data, /srv/share"):
        mounts.choose(None, "/srv/sharewhat", [SHARE, OTHER])


def test_a_path_is_real_without_its_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(os.path.realpath(tmp_path))
    (here / "a" / "b").mkdir(parents=True)
    (here / "absolute").symlink_to(here / "a")
    (here / "relative").symlink_to("absolute/b/..")
    (here / "dangling").symlink_to("nowhere/x")
    (here / "loop").symlink_to("loop")
    monkeypatch.chdir(here / "absolute" / "b")
    for path in (".", "..", "../b/", "../../relative/b", f"{here}//absolute/./b", "../../dangling"):
        assert mounts.real(path) == os.path.realpath(path)
    with pytest.raises(NoMount, match="symbolic links"):
        mounts.real("../../loop")


def test_here_is_known_though_it_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert mounts.within(str(tmp_path), mounts.here())


@pytest.mark.mount
def test_a_mount_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    over = tmp_path / "a b\n\\"
    over.mkdir()
    link = tmp_path / "link"
    link.symlink_to(over)
    with dead_mount.hanging(str(over)):
        found = mounts.mounted()
        assert Mount(str(over), "the-store") in found
        assert mounts.choose(str(link), "/", found) == str(over)
        assert mounts.choose(None, f"{over}/x", found) == str(over)
    assert Mount(str(over), "the-store") not in mounts.mounted()


@pytest.mark.mount
def test_a_dead_mount_is_told_and_taken_away(tmp_path: Path) -> None:
    assert not mounts.stale(str(tmp_path))
    with dead_mount.dead(str(tmp_path)):
        with pytest.raises(OSError) as caught:
            os.stat(tmp_path)
        assert caught.value.errno == errno.ENOTCONN
        assert mounts.stale(str(tmp_path))
        assert mounts.real(str(tmp_path)) == str(tmp_path)
        mounts.detach(str(tmp_path))
        assert not mounts.stale(str(tmp_path))
    with pytest.raises(NoMount, match="can't be unmounted"):
        mounts.detach(str(tmp_path))
