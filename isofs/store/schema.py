"""The database's schema: the reference for what a row means.

Vectors are JSON (`{"0": 2, "1": "m"}`, dimension 0 is G). Names are bytes. Times are ISO 8601 text in UTC or
integer nanoseconds. Foreign keys are deferred: a batch of changes is consistent as a whole, in any order.

Every change of a name writes rows while somebody waits, so each row is in as few B-trees as can be: tables with
a key of several columns are that key's own B-tree. Whoever removes an origin has SQLite look for rows that refer to
it: the key that begins with the origin point serves that, and partial indexes for the columns that are seldom set.
"""

from __future__ import annotations

import functools

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

#: `PRAGMA user_version` of a store that this program reads and writes. Older ones are brought to it (`MIGRATIONS`).
VERSION = 4

#: `PRAGMA application_id`: "isof" in ASCII, so that `file` and a wrong path are told apart.
APPLICATION_ID = 0x69736F66

metadata = MetaData()


def _op(name: str) -> Column[int]:
    return Column(name, Integer, ForeignKey("origins.op", deferrable=True, initially="DEFERRED"))


def _sid(name: str) -> Column[int]:
    return Column(name, Integer, ForeignKey("subjects.sid", deferrable=True, initially="DEFERRED"))


# Facts about the store itself, one a row: 'created' (time), 'next_op' (every origin point below it may be in
# use; reserved in blocks, so that an origin point is never used twice, whatever is killed when), 'attic_ages' (how old
# what is in the attic is, by the numbers: isofs.model.ages).
meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# A user under suspicion, from one `suspect` to the end of its verdict. The same user may come again under a
# new number: a number is a dimension of version vectors, and vectors outlive subjects.
#   part_of   for a part that was split off to be merged alone: the suspect whose it was, null otherwise; then
#             `since` is when that was, `reason` what was asked for
#   objects   how many objects that part had, null otherwise
subjects = Table(
    "subjects",
    metadata,
    Column("sid", Integer, primary_key=True),
    Column("uid", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("since", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    _sid("part_of"),
    Column("objects", Integer),
)

# An object by its origin point. There are rows only for what some suspect has a version or binding of, and for
# the directories on the way from the root to it (so that its path is known whatever moves).
#   ino       main's inode number; null while main has no such object (made by a suspect, or deleted)
#   parent    directory that main has it in, null for the root and for what main has not; with `name`: one of
#             its names there
#   vector    main's version vector; null while no suspect has a version (the paper's "does not exist")
#   born      the subject that made it; null if it was main's first
#   next_ino  set before main's inode is replaced by a rename, cleared after: tells recovery where to look
origins = Table(
    "origins",
    metadata,
    Column("op", Integer, primary_key=True),
    Column("kind", Integer, nullable=False),
    Column("ino", Integer),
    _op("parent"),
    Column("name", LargeBinary, nullable=False),
    Column("vector", Text),
    _sid("born"),
    Column("next_ino", Integer),
)

# A suspect's own state of an object.
#   state     'm' modified, 'd' deleted
#   content   file in the subject's folder; null for 'd'. One that ends in .a has attributes alone: the data are main's
#   main_*    main's fingerprint when the version was made; null if main had no such object
#   attributes  nothing but attributes differ from what the suspect started from
versions = Table(
    "versions",
    metadata,
    _sid("sid"),
    _op("op"),
    Column("state", Text, nullable=False),
    Column("vector", Text, nullable=False),
    Column("content", Text),
    Column("main_ino", Integer),
    Column("main_ctime_ns", Integer),
    Column("main_size", Integer),
    Column("attributes", Boolean, nullable=False),
    PrimaryKeyConstraint("op", "sid"),
    sqlite_with_rowid=False,
)

# A suspect's own entry of a directory: `name` in `directory` leads to `op`, or to nothing if `op` is null.
#   replaced  the object that main had under the name; a removed name hides that object and no other
#   kept      written by isofs to keep the view whole when main changed; no change of the suspect's
bindings = Table(
    "bindings",
    metadata,
    _sid("sid"),
    _op("directory"),
    Column("name", LargeBinary),
    _op("op"),
    _op("replaced"),
    Column("kept", Boolean, nullable=False),
    PrimaryKeyConstraint("directory", "sid", "name"),
    sqlite_with_rowid=False,
)

# When a suspect last changed the names in a directory of which it has no version, or the names of another object: the
# directory's time stamps and the other's change time in the suspect's view. A version has an inode of its own, which
# keeps the time.
touches = Table(
    "touches",
    metadata,
    _sid("sid"),
    _op("op"),
    Column("at_ns", Integer, nullable=False),
    PrimaryKeyConstraint("op", "sid"),
    sqlite_with_rowid=False,
)

# What main had of an object when G stood at `count`, with the `merged` work of so many users in it: kept when main's
# side of a diverged object changes for the first time after a suspect's copy. `content` is a file in the folder
# `bases`.
bases = Table(
    "bases",
    metadata,
    _op("op"),
    Column("count", Integer),
    Column("merged", Integer),
    Column("content", Text, nullable=False),
    PrimaryKeyConstraint("op", "count", "merged"),
    sqlite_with_rowid=False,
)

# What a running merge decided of each object, written at once when the verdict falls and removed object by
# object as it is applied: a merge that is killed goes on with the same decisions.
#   content   file in the subject's folder with what a resolver made of both sides; null if nothing had to be made
#   seen      main's modification time in ns when a resolver read it; null if none was asked, or none merged it
decisions = Table(
    "decisions",
    metadata,
    _sid("sid"),
    _op("op"),
    Column("outcome", Text, nullable=False),
    Column("merged", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("review", Boolean, nullable=False),
    Column("content", Text),
    Column("seen", Integer),
    PrimaryKeyConstraint("op", "sid"),
    sqlite_with_rowid=False,
)

# What merges replaced in main or removed from it: an inode each in the folder `attic`, named by the number. There may
# be very many: they are read when they are asked for. Numbers are never used twice.
#   at         when, as the machine's clock had it: to be shown, nothing is decided by it
#   sid, user  whose merge it was, who may be long forgotten otherwise; 0 and the operator's name for what
#              `attic restore` replaced
#   path       where main had it
#   action     'replaced' or 'deleted'
#   size       bytes of a file's content or of a link's target, else 0
#   live       somebody had the file itself open for writing, and may have written to it since
#   op, ino    set while main is about to be changed: the object (null if the store does not follow it), and the inode
#              that main loses (null if the object keeps it, with another content)
attic = Table(
    "attic",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Text, nullable=False),
    Column("sid", Integer, nullable=False),
    Column("user", Text, nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("action", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("op", Integer),
    Column("ino", Integer),
    sqlite_autoincrement=True,
)

# What one person proposed to do with a user's work, and waits until another confirms it; one at most for a user. They
# are few, and read when they are asked for.
#   uid      the user, whose work may be several subjects'
#   at, by   when, and the name of who proposed it
#   persons  the uids that the proposer may be known by: JSON
#   call     what is to be carried out, a call on the control socket, with its arguments `args`: JSON
#   content  the content that goes with the call; null if none does
#   digest   of what the user had changed; `seen` has a mark of each changed object, by its number: JSON
proposals = Table(
    "proposals",
    metadata,
    Column("uid", Integer, primary_key=True),
    Column("at", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("persons", Text, nullable=False),
    Column("call", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("content", LargeBinary),
    Column("digest", Text, nullable=False),
    Column("seen", Text, nullable=False),
)

# Verdicts that were given, and the settling of conflicts by hand. Read when they are asked for, and kept for as long as
# the configuration says.
#   number   a number like an origin point's, never used twice: the order in which they began
#   at       when it began; `ended` when nothing of it was left to be done, null until then
#   sid      the subject; `uid` and `user` for when it is forgotten
#   verdict  'innocent', 'malicious', 'resolve'
#   part     what was asked for of a part of the work, empty for all of it
#   by       who gave it, and the `reason` that was given; empty if that is not known
#   counts   how much was done of what kind, of a merge only once it has ended: JSON
#   evidence the path of the archive that was written
verdicts = Table(
    "verdicts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Text, nullable=False),
    Column("ended", Text),
    Column("sid", Integer, nullable=False),
    Column("uid", Integer, nullable=False),
    Column("user", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("part", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("counts", Text, nullable=False),
    Column("evidence", Text),
)

# What the report of a verdict says, written in a transaction before the change of main that it tells of, or in that
# which is the change: what is told was done, or is done by whoever goes on, and told again under the same key.
#   verdict          the number in `verdicts`
#   op               the object, which may be forgotten
#   directory, name  the name that it was given or lost; 0 and empty for what became of the object itself
#   place            where in the report it is told
#   aside            the name given to what could not have its own
told = Table(
    "told",
    metadata,
    Column("verdict", Integer),
    Column("op", Integer),
    Column("directory", Integer),
    Column("name", LargeBinary),
    Column("place", Integer, nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("review", Boolean, nullable=False),
    Column("aside", LargeBinary),
    PrimaryKeyConstraint("verdict", "op", "directory", "name"),
    sqlite_with_rowid=False,
)

Index("attic_unsettled", attic.c.number, sqlite_where=attic.c.op.is_not(None) | attic.c.ino.is_not(None))

for _column in (origins.c.parent, bindings.c.op, bindings.c.replaced):
    Index(f"{_column.table.name}_{_column.name}", _column, sqlite_where=_column.is_not(None))

#: What brings a store of a version to the next one, before tables and indexes that it lacks are made.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE decisions ADD COLUMN content TEXT",
        "ALTER TABLE decisions ADD COLUMN seen INTEGER",
        "ALTER TABLE bases RENAME TO bases_1",
        "CREATE TABLE bases (op INTEGER NOT NULL REFERENCES origins (op) DEFERRABLE INITIALLY DEFERRED,"
        " count INTEGER NOT NULL, merged INTEGER NOT NULL, content TEXT NOT NULL, PRIMARY KEY (op, count, merged))"
        " WITHOUT ROWID",
        "INSERT INTO bases SELECT op, count, 0, content FROM bases_1",
        "DROP TABLE bases_1",
        "ALTER TABLE subjects ADD COLUMN part_of INTEGER REFERENCES subjects (sid) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE subjects ADD COLUMN objects INTEGER",
    ),
    2: (),  # the table of proposals is new
    3: (),  # the tables of verdicts and of what is told of them are new
}


@functools.cache
def making() -> tuple[str, ...]:
    """The statements that make a new database, as SQLite is given them: `metadata.create_all` takes ten times as long,
    which asks for each table whether it is there, and writes each statement anew."""
    made: list[CreateTable | CreateIndex] = []
    for table in metadata.sorted_tables:
        made += [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))]
    return tuple(str(one.compile(dialect=sqlite.dialect())) for one in made)
