"""Installing isofs on a system: the helper of mount(8), and the unit of systemd."""

from __future__ import annotations

import configparser
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isoctl.mounthelper import Wanted, wanted
from isofs.errors import Already, UsageError
from isofs.service import installing
from support.mount import Mounted, isoctl, mounts_below


def files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def actions(root: Path, what: str) -> list[str]:
    done = isoctl("service", what, "--root", str(root), "--json")
    assert done.code == 0, done
    assert done.json["reloaded"] is False
    return [file["action"] for file in done.json["files"]]


def test_installing_twice_and_removing_twice(tmp_path: Path) -> None:
    assert actions(tmp_path, "install") == ["installed"] * 3
    first = files(tmp_path)
    assert sorted(first) == ["etc/systemd/system/isofs@.service", "sbin/mount.fuse.isofs", "sbin/mount.isofs"]
    assert actions(tmp_path, "install") == ["unchanged"] * 3
    helper = tmp_path / "sbin" / "mount.isofs"
    assert stat.S_IMODE(helper.stat().st_mode) == 0o755
    helper.write_text(first["sbin/mount.isofs"] + "# an older one\n")
    assert actions(tmp_path, "install") == ["replaced", "unchanged", "unchanged"]
    assert files(tmp_path) == first
    assert actions(tmp_path, "uninstall") == ["removed"] * 3
    assert actions(tmp_path, "uninstall") == ["absent"] * 3
    assert files(tmp_path) == {}


@pytest.mark.parametrize("act", [installing.install, installing.uninstall])
def test_what_somebody_else_put_there_stays(tmp_path: Path, act: Callable[[str], object]) -> None:
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin" / "mount.isofs").write_text("#!/bin/sh\n")
    with pytest.raises(Already, match="not put there by isofs"):
        act(str(tmp_path))
    assert files(tmp_path) == {"sbin/mount.isofs": "#!/bin/sh\n"}


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    installing.install(str(tmp_path))
    unit = tmp_path / installing.UNIT
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(unit)
    service = parsed["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert "mount --foreground --supervised" in service["ExecStart"]
    assert parsed["Unit"]["RequiresMountsFor"] == "%f"
    if shutil.which("systemd-analyze"):
        name = installing.unit_name("/srv/my share/a-b")
        instance = tmp_path / name
        shutil.copy(unit, instance)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(instance)], capture_output=True, text=True)
        assert "isofs" not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="systemd is not there to compare with")
@pytest.mark.parametrize(
    "path", ["/", "/srv/share", "/srv//share/", "/srv/my share/a-b", "/.hidden/x", "/srv/ü", "/a/b:c_d.e", "/srv/%i\\x"]
)
def test_the_name_of_a_units_instance(path: str) -> None:
    words = ["systemd-escape", "--path", "--template=isofs@.service", path]
    assert installing.unit_name(path) == subprocess.run(words, capture_output=True, text=True).stdout.rstrip("\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["isofs", "/d"], Wanted("/d")),
        (["/d/", "/d", "-o", "rw,nofail,noauto,_netdev,x-systemd.automount,user,exec,suid,dev"], Wanted("/d")),
        (["isofs", "/d", "-n", "-o", "store=/s"], Wanted("/d", store="/s")),
        (["isofs", "/d", "-vo", 'store="/s,t",watchdog=5'], Wanted("/d", store="/s,t", watchdog=5)),
        (["-o", "unsupervised,trust_everybody", "none", "/d"], Wanted("/d", supervised=False, trust_everybody=True)),
        (["isofs", "/d", "-s", "-o", "whatever"], Wanted("/d")),
        (["isofs", "/d", "-f", "-t", "fuse.isofs", "-orw"], Wanted("/d", fake=True)),
    ],
)
def test_what_mount_asks_for(words: list[str], expected: Wanted) -> None:
    assert wanted(words) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/d"], "usage"),
        (["isofs", "/d", "-z"], "usage"),
        (["/other", "/d"], "the directory itself"),
        (["isofs", "/d", "-o", "whatever"], "no mount option 'whatever'"),
        (["isofs", "/d", "-o", "store=s"], "absolute path"),
        (["isofs", "/d", "-o", "watchdog=soon"], "whole seconds"),
        (["isofs", "/d", "-o", "watchdog=5,unsupervised"], "supervised"),
        (["isofs", "/d", "-o", "nosuid"], "file system below"),
        (["isofs", "/d", "-r"], "file system below"),
    ],
)
def test_what_mount_asks_in_vain(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wanted(words)


@pytest.mark.mount
def test_an_entry_of_fstab(tree: Path, place: Path) -> None:
    """With the real mount(8), which finds the helpers where `service install` puts them, in a mount namespace."""
    root, table = place / "root", place / "fstab"
    installing.install(str(root))
    store = place / "store with spaces"
    table.write_text(
        f"isofs {tree} isofs nofail,x-test,store={str(store).replace(' ', chr(92) + '040')},unsupervised 0 0\n"
    )
    script = (
        "set -e; mount --make-rprivate /; cp -a /usr/sbin/. $1/usr-sbin/ 2>/dev/null || true; "
        "cp $1/root/sbin/* $1/usr-sbin/; mount --bind $1/usr-sbin /usr/sbin; "
        "[ -L /sbin ] || mount --bind $1/usr-sbin /sbin; "
        "mount -T $1/fstab $2; mount -T $1/fstab -a; isoctl=$3; "
        '"$isoctl" -m isoctl.main --mount $2 status; '
        'mount -t isofs isofs $2 -o store=x 2>&1 || echo "refused with $?"; umount $2; '
        "mount -t fuse.isofs isofs $2 -o unsupervised; umount $2"
    )
    (place / "usr-sbin").mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(place), str(tree), sys.executable],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",  # mount(8) makes a path of a source that is one
    )
    assert done.returncode == 0, done
    assert f"store   {store}" in done.stdout
    assert "mount.isofs: store= takes an absolute path, not 'x'" in done.stdout
    assert "refused with 1" in done.stdout
    assert not mounts_below(tree)
    assert Mounted(tree).path == tree
