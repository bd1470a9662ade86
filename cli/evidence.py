"""isoctl evidence: the archives that malicious verdicts leave."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

from isoctl import completing, daemon, output, reads, stores
from isofs.control import results
from isofs.errors import ArchiveUnusable

_SUFFIX = ".tar.zst"


@click.group()
def evidence() -> None:
    """List, show, check and unpack what malicious verdicts kept.

    An ARCHIVE is a name from `list`, or the path of a file, with a slash in it.
    """


@evidence.command("list")
@stores.store_option
@output.json_option
@click.pass_obj
def list_(directory: str | None, store: str | None, as_json: bool) -> None:
    """List the archives in the store: whose work, since when, when the verdict was, and how much it is."""
    daemon.need_root()
    folder = _folder(directory, store)
    found = [_entry(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(_SUFFIX)]
    facts: results.Archives = {"evidence": found}
    if as_json:
        output.document(facts)
        return
    if not found:
        output.line("no evidence")
    for entry in found:
        if entry["error"] is not None:
            output.line(f"{entry['name']}  {output.size(entry['size'])}: {entry['error']}")
        else:
            output.line(
                f"{entry['name']}  {entry['user']} (uid {entry['uid']})  since {entry['since']}  "
                f"verdict {entry['verdict']}  {output.plural(entry['versions'] or 0, 'version')}, "
                f"{output.size(entry['bytes'] or 0)} in {output.size(entry['size'])}"
            )


def _entry(folder: str, name: str) -> results.Archive:
    from isofs.store import inspection

    path = os.path.join(folder, name)
    entry: results.Archive = {
        "name": name,
        "path": path,
        "size": 0,
        "user": None,
        "uid": None,
        "since": None,
        "verdict": None,
        "versions": None,
        "bytes": None,
        "error": None,
    }
    try:
        with _opened(path) as file:
            entry["size"] = os.fstat(file.fileno()).st_size
            told = inspection.about(file)
    except ArchiveUnusable as error:
        entry["error"] = str(error)
        return entry
    verdict = told.get("verdict")
    entry["user"], entry["since"] = _text(told.get("user")), _text(told.get("since"))
    entry["verdict"] = _text(verdict.get("at")) if isinstance(verdict, dict) else None
    entry["uid"], entry["versions"] = _number(told.get("uid")), _number(told.get("versions"))
    entry["bytes"] = _number(told.get("bytes"))
    return entry


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 63 else None


@evidence.command()
@click.argument("archive")
@stores.store_option
@output.json_option
@click.pass_obj
def show(directory: str | None, archive: str, store: str | None, as_json: bool) -> None:
    """Show who, when and why, and every version and removed name in ARCHIVE, which is checked first.

    Then what the user read of what others made, and when that was not recorded.
    """
    from isofs.store import inspection

    with _chosen(directory, store, archive) as (_, file):
        manifest = _checked(file, "reading").manifest
        file.seek(0)
        if as_json:
            output.document({**manifest, "read_set": list(inspection.read_set(file))})
            return
        _show(manifest)
        for one in inspection.read_set(file):
            size = output.size(one["size"]) if isinstance(one.get("size"), int) else ""
            seen = f"{one.get('at')}  ({reads.how(one)})"
            output.line(f"read     {one.get('kind')!s:<9}  {size:>8}  {one.get('path') or '.'}  {seen}")
        read = manifest.get("reads")
        gaps = read.get("gaps") if read is not None else None
        for gap in gaps if isinstance(gaps, list) else ():
            if isinstance(gap, dict):
                output.line(reads.gap_line(gap))
        if read is None:
            output.line("what the user read is not in this archive")


def _show(manifest: dict[str, Any]) -> None:
    told = manifest["about"]
    for key in ("user", "uid", "since", "reason", "mount"):
        output.line(f"{key:<8} {told.get(key)}")
    verdict = told.get("verdict")
    if isinstance(verdict, dict):
        reason = f": {verdict['reason']}" if verdict.get("reason") else ""
        output.line(f"verdict  {verdict.get('at')} by {verdict.get('by')}{reason}")
    for version in manifest["versions"]:
        content = version.get("content") or {}
        size = output.size(content["size"]) if content else ""
        digest = f"  sha256:{content['sha256']}" if content else ""
        leads = f" -> {version['target']}" if version.get("target") else ""
        state = "deleted" if version.get("state") == "d" else "kept"
        output.line(f"{state:<8} {version.get('kind')!s:<9}  {size:>8}  {version.get('path')}{leads}{digest}")
    for binding in manifest["bindings"]:
        if binding.get("object") is None:
            was = binding.get("replaced_path")
            output.line(f"removed  name       {binding.get('name')} of {binding.get('directory') or '.'} (now {was})")


@evidence.command()
@click.argument("archive")
@stores.store_option
@output.json_option
@click.pass_obj
def verify(directory: str | None, archive: str, store: str | None, as_json: bool) -> None:
    """Read ARCHIVE and compute every hash anew. The exit code says whether it is as it was written."""
    with _chosen(directory, store, archive) as (path, file):
        checked = _checked(file, "verifying")
    facts: results.Verified = {
        "path": path,
        "user": _text(checked.manifest["about"].get("user")),
        "versions": len(checked.manifest["versions"]),
        "contents": len(checked.contents),
        "bytes": checked.stored,
    }
    if as_json:
        output.document(facts)
        return
    contents = output.plural(facts["contents"], "content")
    versions = output.plural(facts["versions"], "version")
    output.line(f"verified {path}: {versions}, {contents} of {output.size(facts['bytes'])}")


@evidence.command()
@click.argument("archive")
@click.argument("into", metavar="DIR", shell_complete=completing.directories)
@click.option(
    "--attributes", is_flag=True, help="Give owners, modes, ACLs and user attributes back, but no set-id bit."
)
@stores.store_option
@output.json_option
@click.pass_obj
def extract(directory: str | None, archive: str, into: str, attributes: bool, store: str | None, as_json: bool) -> None:
    """Unpack ARCHIVE, which is checked first, into DIR, which must not be there yet.

    DIR is root's alone. Below DIR/tree are the versions at their paths, and in DIR/nameless those
    that had none; DIR/manifest.json tells the rest. Files are made mode 0600; FIFOs, sockets and
    devices aren't made.
    """
    from isofs.store import extract as extraction

    with _chosen(directory, store, archive) as (path, file), _moved(file, f"unpacking {archive}", 2) as moved:
        done = extraction.extract(file, into, attributes=attributes, moved=moved)
    facts: results.Extracted = {
        "path": path,
        "directory": into,
        "files": done.files,
        "directories": done.directories,
        "links": done.links,
        "left_out": done.left_out,
    }
    if as_json:
        output.document(facts)
        return
    counts = {"files": done.files, "directories": done.directories, "links": done.links}
    output.line(f"extracted {output.counts(counts)} into {into}")
    for name in done.left_out:
        output.line(f"left out {name}: it is a special file")


def _checked(file: BinaryIO, doing: str) -> Any:
    from isofs.store import inspection

    with _moved(file, doing, 1) as moved:
        return inspection.check(file, moved)


@contextlib.contextmanager
def _moved(file: BinaryIO, label: str, passes: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, and what moves it; how far it is to go is told by the archive, which may lie."""
    from isofs.store import inspection

    total = passes * (_number(inspection.about(file).get("bytes")) or 0)
    file.seek(0)
    done = 0
    with output.progress(label) as move:

        def moved(count: int) -> None:
            nonlocal done
            done += count
            move(min(done, total), total)

        yield moved


@contextlib.contextmanager
def _chosen(directory: str | None, store: str | None, archive: str) -> Iterator[tuple[str, BinaryIO]]:
    """The archive that a command means, open, and its path. ArchiveUnusable if there is none."""
    daemon.need_root()
    path = archive
    if "/" not in archive:
        folder = _folder(directory, store)
        path = os.path.join(folder, archive)
        if not os.path.lexists(path) and os.path.lexists(path + _SUFFIX):
            path += _SUFFIX
        elif not os.path.lexists(path):
            raise ArchiveUnusable(f"there is no evidence {archive} in {folder}: see `isoctl evidence list`")
    with _opened(path) as file:
        yield path, file


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except OSError as error:
        raise ArchiveUnusable(f"{path} cannot be opened: {error.strerror}") from None
    with file:
        try:
            yield file
        except OSError as error:
            raise ArchiveUnusable(f"{path} cannot be read: {error.strerror}") from None


def _folder(directory: str | None, store: str | None) -> str:
    """The folder of archives, as it can be read now, of a mount or of a store whose directory isn't mounted."""
    return os.path.join(stores.folder(directory, store), "evidence")
