"""What the facts of `isofs.service.machine` mean for isofs: one small rule each, and a command for each problem."""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from isofs.service.machine import TOOLS, Machine
from isofs.service.volumes import Volume

#: The oldest kernel whose calls isofs uses: `open_tree` and `move_mount` are of 5.2.
OLDEST_KERNEL = (5, 2)

#: That of Debian 12, which isofs is meant for: what it does about caches rests on how kernels behave.
DEBIAN_KERNEL = (6, 1)

#: The only protocol that is spoken, and the first version of it in which the kernel leaves the set-id bits of what is
#: written to isofs, instead of asking for an attribute before each write.
PROTOCOL, QUICK_PROTOCOL = 7, (7, 33)

#: Descriptors below which many open files are too many.
FEW_DESCRIPTORS = 20_000

#: Room below which there is too little, in bytes, in per cent, and in objects.
LITTLE, SCARCE, FEW = 64 << 20, 5, 1000

#: File systems that other machines change, or that answer late; and those on which owners are not kept.
REMOTE = ("9p", "afs", "ceph", "cifs", "fuse.", "glusterfs", "nfs", "nfs4", "smb3", "virtiofs")
WITHOUT_OWNERS = ("exfat", "msdos", "ntfs", "ntfs3", "vfat")


class Level(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule says: of what, how bad, in words; and for what is not all right a command, if there is one."""

    check: str
    level: Level
    text: str
    fix: str | None = None


#: What a rule answers, without its name; nothing if there is nothing to say.
Said = tuple[Level, str] | tuple[Level, str, str] | None


def diagnose(machine: Machine) -> list[Finding]:
    """What all rules say, in their order."""
    return list(_findings(machine))


def _findings(machine: Machine) -> Iterator[Finding]:
    for check, rule in RULES.items():
        said = rule(machine)
        if said is not None:
            yield Finding(check, *said)


def ok(text: str) -> Said:
    return Level.OK, text


def warning(text: str, fix: str | None = None) -> Said:
    return (Level.WARNING, text) if fix is None else (Level.WARNING, text, fix)


def problem(text: str, fix: str) -> Said:
    return Level.PROBLEM, text, fix


def _root(m: Machine) -> Said:
    return ok("this is root") if m.uid == 0 else problem("isofs needs root", "sudo isoctl doctor")


def _capabilities(m: Machine) -> Said:
    if m.uid != 0:
        return None  # that is why
    if not m.lacking:
        return ok("every capability that isofs needs is there")
    given = " ".join(f"--cap-add={name.removeprefix('CAP_')}" for name in m.lacking)
    return problem(f"{', '.join(m.lacking)} is missing: in a container, it must be given", f"docker run {given}")


def _device(m: Machine) -> Said:
    if m.uid != 0:
        return None
    if not m.device:
        return ok("/dev/fuse can be opened")
    fix = "modprobe fuse" if not m.module else "mknod -m 666 /dev/fuse c 10 229"
    return problem(f"/dev/fuse cannot be opened: {m.device}; in a container: --device /dev/fuse", fix)


def _mounting(m: Machine) -> Said:
    if not m.unmounted:
        return ok("a mount can be made")
    if m.device or m.uid != 0:
        return None  # that is why
    fix = "docker run --cap-add=SYS_ADMIN --security-opt apparmor=unconfined"
    return problem(f"nothing can be mounted: {m.unmounted}; in a container, it must be allowed", fix)


def _kernel(m: Machine) -> Said:
    found = re.match(r"(\d+)\.(\d+)", m.kernel)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST_KERNEL:
        return problem(f"Linux {m.kernel} is too old: 5.2 is the oldest", "apt-get install linux-image-amd64")
    if version < DEBIAN_KERNEL:
        return warning(f"Linux {m.kernel} is older than Debian 12's, which isofs is meant for")
    return ok(f"Linux {m.kernel}")


def _protocol(m: Machine) -> Said:
    if m.protocol is None:
        return None
    words = f"FUSE protocol {m.protocol[0]}.{m.protocol[1]}"
    if m.protocol[0] != PROTOCOL:
        return problem(f"{words} is another one than isofs speaks", "apt-get install linux-image-amd64")
    if m.protocol < QUICK_PROTOCOL:
        return warning(f"{words}: before 7.33 writing is slower")
    return ok(words)


def _libfuse(m: Machine) -> Said:
    if m.libfuse is None:
        return problem("libfuse 3 is not there", "apt-get install libfuse3-3")
    if m.binding:
        return problem(f"pyfuse3 cannot be used: {m.binding}", "pip install --force-reinstall pyfuse3")
    return ok(f"libfuse {m.libfuse}, with its binding")


def _tools(m: Machine) -> Said:
    if not m.tools:
        return ok(f"{', '.join(TOOLS)}: there")
    packages = " ".join(sorted({TOOLS[name] for name in m.tools}))
    return problem(f"not there: {', '.join(m.tools)}", f"apt-get install {packages}")


def _descriptors(m: Machine) -> Said:
    if 0 <= m.descriptors < FEW_DESCRIPTORS:
        text = f"a process may have {m.descriptors} files open: people with many open files may be refused more"
        return warning(text, f"prlimit --pid $$ --nofile={1 << 20}")
    return ok("a process may have enough files open")


def _users(m: Machine) -> Said:
    if m.all_uids:
        return ok("every uid is the machine's")
    return problem(
        "this is a user namespace: uids are not the machine's, and other users' files cannot be given to them",
        "nsenter --target 1 --user --mount isoctl doctor",
    )


def _confined(m: Machine) -> Said:
    if m.confined is None:
        return ok("no AppArmor profile confines this")
    profile = shlex.quote(m.confined.split(" ")[0])
    return warning(
        f"the AppArmor profile {m.confined} confines this, and may forbid mounting", f"aa-complain {profile}"
    )


def _systemd(m: Machine) -> Said:
    return ok("systemd runs" if m.systemd else "systemd does not run: start isofs by other means")


def _directory(m: Machine) -> Said:
    if m.directory is None:
        return None
    if m.unreachable:
        if m.uid != 0:
            return None  # that is why
        return problem(f"{m.directory} cannot be looked at: {m.unreachable}", f"mkdir {shlex.quote(m.directory)}")
    assert m.volume is not None
    where = shlex.quote(m.directory)
    if m.volume.read_only:
        return problem(f"{m.directory} is read-only", f"mount -o remount,rw $(findmnt -n -o TARGET --target {where})")
    if m.volume.kind in WITHOUT_OWNERS:
        text = f"{m.directory} is on {m.volume.kind}, which keeps no owners: nobody can be told from others"
        return problem(text, f"isoctl doctor DIR_ON_ANOTHER_FILE_SYSTEM  # instead of {where}")
    if m.volume.kind.startswith(REMOTE):
        return warning(f"{m.directory} is on {m.volume.kind}: what other machines change there passes by isofs")
    return ok(f"{m.directory} is on {m.volume.kind}")


def _writing(m: Machine) -> Said:
    for volume in _both(m):
        if volume.writes:
            fix = f"findmnt --target {shlex.quote(volume.directory)}"
            return problem(f"nothing can be written to {volume.directory}: {volume.writes}", fix)
    return None if m.volume is None or m.volume.writes is None else ok("files can be made")


def _names(m: Machine) -> Said:
    if m.volume is None:
        return None
    if m.volume.folds:
        text = f"{m.directory} does not tell names apart by case, isofs does"
        return problem(text, f"chattr -F {shlex.quote(str(m.directory))}  # while it is empty")
    if m.volume.names < 255:
        return warning(
            f"names may have {m.volume.names} bytes only, and those that conflicts are kept under are longer"
        )
    return ok("names differ by case, and may have 255 bytes")


def _attributes(m: Machine) -> Said:
    """The store must be able to keep what the directory has."""
    volume, store = m.volume, m.store_volume
    if volume is None or store is None or volume.xattrs is None or store.xattrs is None:
        return None
    for name, here, there in (
        ("extended attributes", volume.xattrs, store.xattrs),
        ("ACLs", volume.acls, store.acls),
    ):
        if here and not there:
            text = (
                f"{volume.directory} has {name}, and {store.directory}, where the store is, has not: they would be lost"
            )
            return problem(text, f"isoctl mount {shlex.quote(volume.directory)}  # with the store in it")
    missing = [name for name, has in (("extended attributes", volume.xattrs), ("ACLs", volume.acls)) if not has]
    if missing:
        return warning(f"{volume.directory} has no {' and no '.join(missing)}")
    return ok("extended attributes and ACLs are kept")


def _sharing(m: Machine) -> Said:
    volume, store = m.volume, m.store_volume
    if volume is None or store is None or volume.reflink is None:
        return None
    if store.device != volume.device:
        return warning(f"the store is on another file system ({store.kind}): first changes and merges copy whole files")
    if not volume.reflink:
        return warning(f"{volume.kind} cannot share blocks there: the first change of a file copies the whole file")
    return ok("copies share their blocks")


def _unnamed(m: Machine) -> Said:
    if m.volume is None or m.volume.tmpfile is None:
        return None
    return (
        ok("files without a name can be made")
        if m.volume.tmpfile
        else warning("there are no files without a name there")
    )


def _room(m: Machine) -> Said:
    for volume in _both(m):
        where = shlex.quote(volume.directory)
        if volume.size and volume.free < LITTLE:
            text = f"{volume.directory} has {volume.free >> 20} MiB left: nothing of a suspect could be kept"
            return problem(text, f"df -h {where}; isoctl attic purge")
        if volume.inodes and volume.free_inodes < FEW:
            text = f"{volume.directory} has {volume.free_inodes} inodes left: nothing of a suspect could be kept"
            return problem(text, f"df -i {where}; isoctl attic purge")
        if volume.size and volume.free * 100 < volume.size * SCARCE:
            return warning(f"less than {SCARCE} % of {volume.directory} are free", f"df -h {where}")
        if volume.inodes and volume.free_inodes * 100 < volume.inodes * SCARCE:
            return warning(f"less than {SCARCE} % of the inodes of {volume.directory} are free", f"df -i {where}")
    return None if m.volume is None else ok("there is room")


def _store(m: Machine) -> Said:
    if m.store is None:
        return None
    if not m.store.there:
        return ok(f"no store yet: it will be {m.store.path}")
    if m.running is not None:
        return (
            problem(f"the store has problems: {m.running}", "isoctl check") if m.running else ok("the store is sound")
        )
    if m.store.version is None and m.store.closed:
        fix = f"isoctl restore BACKUP {shlex.quote(m.store.path)}  # after it was moved away"
        return problem(f"{m.store.path} has an isofs.db that is no store's", fix)
    if m.store.version is not None and m.store.version > m.store.supported:
        text = f"the store is of version {m.store.version}, this program knows {m.store.supported}"
        return problem(text, "pip install --upgrade isofs")
    if not m.store.closed:
        return ok("the store was not closed, which the next mount mends")
    return ok(f"the store is of version {m.store.version}")


def _settings(m: Machine) -> Said:
    if m.store is None or not m.store.there:
        return None
    if m.store.configuration is not None:
        return problem(m.store.configuration, "isoctl config edit")
    if m.store.hooks:
        return problem(f"hooks that are not run: {'; '.join(m.store.hooks)}", "isoctl config edit")
    return ok("the settings can be read")


def _neighbours(m: Machine) -> Said:
    if m.directory is None:
        return None
    if m.other is not None:
        text = f"an isofs is mounted at {m.other}: one way in, one mount"
        return problem(text, f"isoctl umount {shlex.quote(m.other)}")
    if m.below:
        return warning(f"not seen through the mount, because mounted below it: {', '.join(m.below[:5])}")
    return ok("nothing else is mounted in it")


def _both(m: Machine) -> Sequence[Volume]:
    """The directory's file system, and the store's."""
    return [volume for volume in (m.volume, m.store_volume) if volume is not None]


#: All rules, in the order in which they are shown.
RULES: dict[str, Callable[[Machine], Said]] = {
    "root": _root,
    "capabilities": _capabilities,
    "device": _device,
    "mounting": _mounting,
    "kernel": _kernel,
    "protocol": _protocol,
    "libfuse": _libfuse,
    "tools": _tools,
    "descriptors": _descriptors,
    "users": _users,
    "confinement": _confined,
    "systemd": _systemd,
    "directory": _directory,
    "writing": _writing,
    "names": _names,
    "attributes": _attributes,
    "sharing": _sharing,
    "unnamed": _unnamed,
    "room": _room,
    "store": _store,
    "settings": _settings,
    "neighbours": _neighbours,
}
