"""Backing files are opened one component at a time below a descriptor, and no link is followed: every call says so.

Of the source of all that works on main and the store, by its syntax: `os` calls that take paths name the directory by a
descriptor (`dir_fd`) and do not follow links (`O_NOFOLLOW`, `O_CREAT | O_EXCL` or `follow_symlinks=False`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import isofs

SOURCE = Path(isofs.__file__).parent
MODULES = sorted(path for part in ("engine", "store", "merge") for path in (SOURCE / part).rglob("*.py"))

#: Calls that take `dir_fd`; those of the second group follow a link unless they are told not to.
NAMED = {"mkdir", "mknod", "mkfifo", "readlink", "rmdir", "unlink", "remove", "symlink"}
FOLLOWING = {"stat", "chown", "utime", "access"}
PAIRS = {"rename", "replace", "link"}
#: Calls that know no `dir_fd`; they are given what `/proc/self/fd` says of a descriptor.
XATTRS = {"getxattr", "setxattr", "listxattr", "removexattr"}
NEVER = {"lstat", "lchown", "makedirs", "removedirs", "renames", "walk", "chdir", "statvfs", "truncate"}
IN_PATH = {"exists", "isfile", "isdir", "islink", "lexists", "getsize", "realpath"}

#: What has O_NOFOLLOW in the flags that it returns.
FLAGS = {"backing_flags", "untouching_flags"}

#: By module and function: why it may do otherwise.
EXCEPTIONS = {
    ("engine/reading.py", "load"): "the directory that is mounted, which root named",
    ("engine/looking.py", "_covered"): "what the kernel says of mounts",
    ("engine/callers.py", "*"): "what the kernel says of a process",
    ("engine/writing.py", "_copy"): "a descriptor's path: `tree.reached`",
    ("engine/xattrs.py", "_take_set_group"): "a descriptor's path: `tree.reached`",
    ("engine/attributes.py", "_apply"): "a descriptor's path: `tree.reached` or a handle's",
    ("engine/attributes.py", "_note_emptied"): "the same path",
    ("store/inodes.py", "chmod"): "whoever calls it knows that it is no link",
    ("store/database.py", "sync"): "the database, which SQLite opens by its path, in a directory that is root's alone",
    ("store/folder.py", "open_store"): "the store, which root named",
    ("store/folder.py", "open_unusable"): "the store, which root named",
    ("store/folder.py", "_open_root"): "the store, which root named",
    ("store/heading.py", "*"): "the database, in a directory that is root's alone",
    ("store/salvage.py", "*"): "the database, in a directory that is root's alone",
    ("store/extract.py", "*"): "the directory that root named, opened once; what is in it goes by descriptors",
    ("merge/external.py", "*"): "a new directory of root's for one run of a program, and nothing of main or the store",
}


#: Where names are given values, from the function to the module.
Scopes = list[ast.AST]


def calls() -> Iterator[tuple[str, str, ast.Call, Scopes]]:
    """Every call: module, function around it, call, scopes."""
    for path in MODULES:
        tree = ast.parse(path.read_text())
        inner: dict[ast.AST, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        for one in ast.walk(tree):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                inner |= dict.fromkeys(ast.walk(one), one)
        own_open = any(isinstance(one, ast.FunctionDef) and one.name == "open" for one in tree.body)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and not (own_open and ast.unparse(node.func) == "open"):
                around = inner.get(node)
                scopes: Scopes = [tree] if around is None else [around, tree]
                yield str(path.relative_to(SOURCE)), "" if around is None else around.name, node, scopes


def name_of(call: ast.Call) -> str:
    """`os.open` as `open`, `os.path.exists` as `path.exists`, the built-in `open` as `builtin open`; else empty."""
    text = ast.unparse(call.func)
    if text == "open":
        return "builtin open"
    return text.removeprefix("os.") if text.startswith("os.") else ""


def is_descriptor(path: ast.expr) -> bool:
    """Whether a path is `/proc/self/fd/N`: what is open already, under no name."""
    text = path.left if isinstance(path, ast.BinOp) and isinstance(path.op, ast.Mod) else path
    return isinstance(text, ast.Constant) and text.value == b"/proc/self/fd/%d"


def forbids_links(flags: ast.expr, scopes: Scopes) -> bool:
    """Whether flags of `open` hold O_NOFOLLOW or make a new file; a name stands for all it is given in its scope."""
    found = {node.attr for node in ast.walk(flags) if isinstance(node, ast.Attribute)}
    found |= {node.id for node in ast.walk(flags) if isinstance(node, ast.Name)}
    if "O_NOFOLLOW" in found or found & FLAGS or {"O_CREAT", "O_EXCL"} <= found:
        return True
    if not isinstance(flags, ast.Name):
        return False
    for number, scope in enumerate(scopes):
        given = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
        values = [node.value for node in given if flags.id in map(ast.unparse, node.targets)]
        if values:
            return all(forbids_links(value, scopes[number:]) for value in values)
    return False


def wrong(call: ast.Call, scopes: Scopes) -> str:
    """What is wrong with a call; empty for nothing."""
    name, words = name_of(call), {word.arg: word.value for word in call.keywords}
    stays = isinstance(words.get("follow_symlinks"), ast.Constant) and ast.unparse(words["follow_symlinks"]) == "False"
    path = call.args[0] if call.args else ast.Constant(None)
    if is_descriptor(path):
        return ""
    if name in NEVER or (name.startswith("path.") and name.removeprefix("path.") in IN_PATH):
        return "goes by a path"
    if name in NAMED | FOLLOWING | {"open", "chmod"} and "dir_fd" not in words:
        return "has no dir_fd" if not _by_descriptor(path) else ""
    if name in PAIRS and not {"src_dir_fd", "dst_dir_fd"} <= words.keys():
        return "has no descriptors of its directories"
    if name in FOLLOWING | {"link", "chmod"} and not stays:
        return "follows links"
    if name in XATTRS and not stays and not _by_descriptor(path) and ast.unparse(path) != "path":
        return "follows links"
    if name == "open" and not _is_here(path) and not forbids_links(call.args[1], scopes):
        return "follows links"
    if name == "builtin open" and not _opens_descriptor(path):
        return "goes by a path"
    return ""


def _is_here(path: ast.expr) -> bool:
    return isinstance(path, ast.Constant) and path.value in (b".", ".")


def _by_descriptor(path: ast.expr) -> bool:
    """Whether an argument is a descriptor by its name."""
    return ast.unparse(path) in ("descriptor", "opened", "reader", "writer", "handle.descriptor", "scratch.name")


def _opens_descriptor(path: ast.expr) -> bool:
    if isinstance(path, ast.Call):
        return name_of(path) == "open"
    return isinstance(path, ast.Name | ast.Attribute) and ast.unparse(path).split(".")[-1] in {
        "opened",
        "fd",
        "descriptor",
    }


def test_every_call_names_one_component_and_follows_no_link() -> None:
    found, used = [], set()
    for module, function, call, scopes in calls():
        why = wrong(call, scopes)
        if why:
            keys = {(module, function), (module, "*")} & EXCEPTIONS.keys()
            used |= keys
            if not keys:
                found.append(f"{module}:{call.lineno} {function}: {ast.unparse(call)} {why}")
    assert not found, "\n".join(found)
    assert used == EXCEPTIONS.keys(), "exceptions that nothing needs"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("os.open(name, os.O_RDONLY, dir_fd=at)", "follows links"),
        ("os.open(name, os.O_RDONLY | os.O_NOFOLLOW)", "has no dir_fd"),
        ("os.open(name, FLAGS, dir_fd=at)", "follows links"),
        ("os.open(name, SAFE, dir_fd=at)", ""),
        ("os.open(b'/proc/self/fd/%d' % at, os.O_RDONLY)", ""),
        ("os.stat(name, dir_fd=at)", "follows links"),
        ("os.stat(name, dir_fd=at, follow_symlinks=False)", ""),
        ("os.rename(a, b)", "has no descriptors of its directories"),
        ("os.unlink(name)", "has no dir_fd"),
        ("os.getxattr(place.path, name)", "follows links"),
        ("os.path.exists(name)", "goes by a path"),
        ("open(name)", "goes by a path"),
    ],
)
def test_what_is_wrong_is_seen(text: str, why: str) -> None:
    tree = ast.parse(f"SAFE = os.O_NOFOLLOW\nFLAGS = os.O_RDONLY\n{text}")
    call = tree.body[-1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert wrong(call.value, [tree]) == why


def test_the_flags_that_others_trust_forbid_links() -> None:
    for function in FLAGS:
        bodies = [
            node
            for path in MODULES
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef) and node.name == function
        ]
        assert bodies, function
        for body in bodies:
            values = [node.value for node in ast.walk(body) if isinstance(node, ast.Return)]
            assert values
            for value in values:
                assert value is not None
                assert "O_NOFOLLOW" in ast.unparse(value) or any(f in ast.unparse(value) for f in FLAGS), function
