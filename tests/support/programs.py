"""Real programs at work: shell scripts whose output and resulting tree must not depend on the file system.

Each has a `given` part, which somebody trusted runs before, and a part that is compared. Both run in one directory,
by one user. What differs by nature (times, inode numbers, the path of the tree) is not printed and not left behind.
"""

from __future__ import annotations

from typing import NamedTuple


class Program(NamedTuple):
    given: str
    script: str


_GIT = """
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@x GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_DATE='2001-02-03T04:05:06Z' GIT_COMMITTER_DATE='2001-02-03T04:05:06Z' HOME=$PWD
git config --global init.defaultBranch main
git config --global gc.auto 0
git config --global pack.threads 1
git config --global advice.detachedHead false
"""

_DELIVER = r"""
cat >deliver.py <<'END'
import fcntl, os, sys
box, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    text = f"From {who} Sat Jan  1 00:00:00 2000\nSubject: {number}\n\n{who} {number}\n\n"
    unique = f"{box}.{who}"
    while True:
        open(unique, "w").close()
        try:
            os.link(unique, f"{box}.lock")
            break
        except FileExistsError:
            pass
        finally:
            os.unlink(unique)
    with open(box, "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        end = os.path.getsize(box)
        assert file.tell() == end or file.seek(0, 2) == end
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        fcntl.lockf(file, fcntl.LOCK_UN)
    os.unlink(f"{box}.lock")
END
"""

PROGRAMS = {
    "git": Program(
        _GIT
        + """
        git init -q origin && cd origin
        for n in 1 2 3; do seq $n 200 >f$n; mkdir -p d$n; echo $n >d$n/x; git add .; git commit -qm "commit $n"; done
        git branch side HEAD~1
        """,
        _GIT
        + """
        git clone -q origin clone && cd clone && git log --oneline
        git checkout -q side
        seq 5 100 >f1; git rm -q f2; git mv d1 moved; ln -s f1 link; git add -A; git status --short; git commit -qm side
        git rebase -q main || { git status --short; git checkout -q --theirs f1; git add f1
            GIT_EDITOR=true git rebase --continue >/dev/null; }
        git log --format='%h %s' && git diff --stat main
        git stash list; echo change >>f3; git stash -q; git status --short; git stash pop -q; git status --short
        git commit -qam stashed; git tag v1; git gc -q --prune=now; git fsck --full --strict 2>&1
        git count-objects; git ls-files -s; git push -q origin side:pushed; git worktree add -q ../tree v1
        cd ../origin && git merge -q pushed -m merged && git log --oneline && git status --short
        cd .. && git -C clone remote set-url origin ../origin && rm -rf tree clone/.git/worktrees */.git/index
        find . -name '*.pack' -o -name '*.idx' -o -name '*.rev' | xargs rm -f
        """,
    ),
    "sqlite": Program(
        """
        sqlite3 a.db 'create table t (who text, n integer); insert into t values ("given", 0)'
        """,
        """
        for mode in delete truncate persist wal; do
            t=in_$mode; echo "pragma journal_mode=$mode; create table $t (who text, n integer);" | sqlite3 a.db
            for who in one two; do
                (echo ".timeout 30000"; for n in $(seq 15); do
                    echo "begin immediate; insert into $t values ('$who', $n);"
                    echo "update t set n = n + 1; commit;"
                done) | sqlite3 a.db & eval $who=$!
            done
            wait $one; echo $?; wait $two; echo $?
            echo "begin; delete from $t where n = 3; rollback;" | sqlite3 a.db
            sqlite3 a.db "select who, count(*), sum(n) from $t group by who; select * from t; pragma integrity_check"
        done
        sqlite3 a.db 'pragma wal_checkpoint(truncate); pragma journal_mode=delete; vacuum; select count(*) from in_wal'
        sqlite3 a.db '.dump t' && ls && rm a.db
        """,
    ),
    "rsync": Program(
        """
        mkdir -p from/a/b to; seq 1000 >from/a/seq; ln from/a/seq from/hard; ln -s a/seq from/soft
        mkfifo from/fifo; truncate -s 1M from/sparse; echo x >from/a/b/x; chmod 4750 from/a/b/x
        find from -exec touch -hd '2002-02-02 02:02:02.123456789 UTC' {} +
        rsync -aH from/ to/; echo stale >to/stale; echo longer than before >to/a/b/x
        """,
        """
        rsync -aHXASi --delete from/ to/
        rsync -aHXASin --delete from/ to/
        seq 2000 >from/a/seq; touch -d '2003-03-03 03:03:03 UTC' from/a/seq from/a
        rsync -aHi --inplace from/ to/; rsync -aHi --checksum from/ to/
        rsync -aH --backup --backup-dir=../old --remove-source-files from/ to/; find from old to | sort
        rsync -a --whole-file to/ again; diff -r to/a again/a && echo same
        touch -d '2004-04-04 UTC' to again from from/a from/a/b old
        """,
    ),
    "archives": Program(
        """
        mkdir -p tree/deep/er; for n in $(seq 30); do echo $n >tree/deep/$n; done
        ln tree/deep/1 tree/one; ln -s deep tree/soft; mkfifo tree/fifo; chmod 2750 tree/deep; chmod 1777 tree/deep/er
        truncate -s 3M tree/holes; printf end >>tree/holes
        setfattr -n user.mark -v x tree/deep/2; setfacl -m u:61003:r tree/deep/3
        find tree -exec touch -hd '2001-01-01 01:01:01.5 UTC' {} +
        """,
        """
        tar --sort=name --xattrs --acls -Scf a.tar tree && tar -tvf a.tar --full-time --numeric-owner
        mkdir out && tar --xattrs --acls -C out -xpf a.tar && tar --xattrs --acls -C out -df a.tar && echo equal
        cp -a tree copy && diff -r --no-dereference tree/deep copy/deep && echo same
        cp -a --sparse=always tree/holes dense; cmp tree/holes dense && echo same
        rm -r tree/deep && tar --xattrs --acls -xpf a.tar && cp -alf tree linked && stat -c '%h %n' linked/one
        mv copy/deep moved && cp -au moved/. tree/deep && rm -rf copy moved
        find . -type f -name '1*' | sort; du -s --apparent-size tree/holes; test $(du -k tree/holes | cut -f1) -lt 200
        rm a.tar; touch -d '2001-01-01 UTC' tree out linked dense
        """,
    ),
    "make": Program(
        r"""
        cat >Makefile <<'END'
CFLAGS = -O1
program: main.o helper.o lib.a
	$(CC) -o $@ main.o helper.o lib.a
lib.a: square.o
	$(AR) rcD $@ $^
%.o: %.c all.h
clean:
	rm -f *.o *.a program
END
        echo 'int helper(int); int square(int);' >all.h
        printf '#include "all.h"\n#include <stdio.h>\nint main(void){printf("%%d\\n", square(helper(3)));}\n' >main.c
        printf '#include "all.h"\nint helper(int x){return x+1;}\n' >helper.c
        printf '#include "all.h"\nint square(int x){return x*x;}\n' >square.c
        touch -d '2001-01-01 UTC' *; make -s CC=gcc
        """,
        """
        make -s CC=gcc; ./program; sed -i 's/x+1/x+2/' helper.c; make CC=gcc; ./program; make CC=gcc
        touch all.h; make -j3 -s CC=gcc && ./program; cp program other && ./other; strip other
        gcc -O2 -g -fdebug-prefix-map=$PWD=. -o debug *.c && ./debug; make -s clean; make -s CC=gcc; ./program
        """,
    ),
    "pip": Program(
        """
        mkdir package && cd package && mkdir thing-1.0.dist-info thing
        echo 'def say(): print("thing says hello")' >thing/__init__.py
        printf 'Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n' >thing-1.0.dist-info/METADATA
        printf 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n' >thing-1.0.dist-info/WHEEL
        printf '[console_scripts]\nthing = thing:say\n' >thing-1.0.dist-info/entry_points.txt
        printf 'thing/__init__.py,,\nthing-1.0.dist-info/METADATA,,\nthing-1.0.dist-info/WHEEL,,\n' \
            >thing-1.0.dist-info/RECORD
        find -exec touch -d '2001-01-01 UTC' {} +
        /usr/bin/python3 -m zipfile -c ../thing-1.0-py3-none-any.whl thing thing-1.0.dist-info
        """,
        """
        export HOME=$PWD PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
        pip="env/bin/python $(ls /usr/share/python-wheels/pip-*.whl)/pip"
        /usr/bin/python3 -m venv --without-pip env && $pip install -q --no-index ./thing-1.0-py3-none-any.whl
        env/bin/thing; $pip list --format=freeze; find env -name '*.py' | sort | sha256sum
        find env -type f -name '*.py' | sort | xargs cat | sha256sum
        $pip uninstall -qy thing; env/bin/python -c 'import thing' 2>&1 | tail -n 1
        rm -r env
        """,
    ),
    "mail": Program(
        _DELIVER
        + """
        touch inbox; mkdir -p maildir/tmp maildir/new maildir/cur; /usr/bin/python3 deliver.py inbox before 2
        """,
        r"""
        for who in one two; do /usr/bin/python3 deliver.py inbox $who 10 & eval $who=$!; done
        wait $one; echo $?; wait $two; echo $?
        for who in before one two; do grep -c "^From $who " inbox; done; sort inbox | sha256sum
        for n in $(seq 20); do
            echo "message $n" >maildir/tmp/$n.host
            ln maildir/tmp/$n.host maildir/new/$n.host && rm maildir/tmp/$n.host
        done
        for n in 3 5 7; do mv maildir/new/$n.host maildir/cur/$n.host:2,S; done; find maildir | sort
        /usr/bin/python3 - <<'END'
import mailbox
box = mailbox.mbox("inbox"); box.lock()
print(len(box), sorted(m.get_payload() for m in box)[:3])
for key in [k for k, m in box.items() if m["Subject"] == "1"]: box.discard(key)
box.flush(); box.unlock(); print(len(box)); box.close()
there = mailbox.Maildir("maildir", factory=None)
print(sorted(m.get_payload() for m in there)[:3], len(there))
END
        grep -c ^From inbox; rm inbox
        """,
    ),
    "editing": Program(
        """
        mkdir -p src/sub; for n in 1 2 3; do echo "name $n old" >src/$n.txt; cp src/$n.txt src/sub/; done
        ln src/1.txt src/hard; ln -s 2.txt src/soft; chmod 640 src/3.txt; echo precious >src/draft
        """,
        """
        sed -i 's/old/new/' src/*.txt; grep -rn new src | sort; cat src/hard src/soft
        sed -i.bak 's/name/title/' src/sub/1.txt; ls src/sub
        for n in 1 2; do cp -p src/draft src/draft~ && echo "line $n" >>src/draft~ && mv src/draft~ src/draft; done
        cat src/draft; { cat src/draft; echo last; } >src/.new && sync src/.new && mv -f src/.new src/draft
        cp src/3.txt src/4.txt && ln src/4.txt src/backup && printf changed >src/4.txt && cat src/backup
        find src -newer src/1.txt -type f | sort; find src -name '*.bak' -delete -print; find src -links +1 | sort
        find src -type f -exec sha256sum {} + | sort -k2; find src -type l -exec readlink {} +
        grep -rlZ title src | xargs -0 sed -i 's/title/head/'; grep -c head src/sub/*.txt
        mv src/sub src/moved && mv src moved && mkdir src && mv moved src/ && find . | sort
        awk '{print > (FILENAME ".out")}' src/moved/1.txt; split -n 3 src/moved/draft part-; cat part-* ; rm part-*
        install -D -m 755 src/moved/draft bin/a/draft; ln -sfn bin current; ln -sfn src current; readlink current
        exec 3>>src/moved/draft; mv src/moved/draft src/moved/kept; echo appended >&3; exec 3>&-
        tail -n 1 src/moved/kept
        tee -a src/log <src/moved/kept >/dev/null; dd if=src/log of=src/log bs=4 seek=1 count=1 conv=notrunc status=none
        cat src/log; chmod -R go-w src; touch -r src/log src/moved; rmdir src/nothing 2>&1; rm -r bin
        """,
    ),
}
