"""Whether the tests of the store notice when a line of it is wrong: ``python tests/store/mutants.py [NUMBER ...]``.

Each mutant is a file of `aupipe/store`, a text in it, another text in its place, and the tests that are to fail then.
They are tried in a copy of the package and the tests, one after the other. Prints who survived; exit code 1 where one did.
"""
# ruff: noqa: E501

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
O, J, I, V, S, L, K, D, R = (  # noqa: E741
    f"test_{name}.py"
    for name in ("order", "journal", "index", "verify", "shared", "local", "links", "old_stores", "collect")
)
C = "test_contract.py"

MUTANTS = [
    # What must be on the disk before what follows
    ("fs.py", "        disk.fsync(fd, path)\n", "        pass\n", O),
    ("fs.py", "        file.write(parts)\n        file.fsync()", "        file.write(parts)", O),
    ("fs.py", "    disk.rename(source, target)\n    if durable:", "    disk.rename(source, target)\n    if False:", O),
    ("fs.py", "    if durable:\n        fsync_folder(parent)", "    if False:\n        fsync_folder(parent)", O),
    ("fs.py", "            views[0] = views[0][written:]", "            views = views[1:]", O),
    ("fs.py", "    disk.rmdir(path)\n\n\ndef try_remove", "\n\ndef try_remove", S),
    ("fs.py", "        if not _appears(path):\n            raise", "        raise", S),
    ("formats/zarr3.py", "        fs.fsync_folder(self.path)\n", "", O),
    ("formats/hdf5.py", "        self._file.fsync()\n", "", O),
    ("local.py", "        fs.rename(sink.path, target)\n", "        fs.rename(sink.path, target, durable=False)\n", O),
    ("local.py", "        self.folder.make_durable(parent)\n", "", O),
    ("local.py", "        self.folder.make_durable(target)\n", "", O),
    ("log/journal.py", "            fs.fsync(self._fd, self.path)\n            removed", "            removed", O),
    ("log/journal.py", "            fs.fsync_folder(self.folder)\n", "            pass\n", O),
    ("folders.py", "        if path not in self._durable_dirs:", "        if False:", O),
    ("log/index_writer.py", "    fs.rename(staged, path)\n", "    fs.rename(staged, path, durable=False)\n", O),
    ("log/index_writer.py", "    fs.write_file(staged, [content])", "    open(staged, 'wb').write(content)", O),
    # Journals
    ("log/journal.py", "os.fstat(self._fd).st_nlink == 0", "False", J),
    ("log/journal.py", "error.errno not in (errno.ESTALE, errno.ENOENT)", "True", J),
    ("log/journal.py", " or now_s - self._used_s > IDLE_S", "", J),
    ("log/journal.py", "self._pid != os.getpid() or", "self._pid == 0 or", J),
    (
        "log/journal.py",
        "            self._close()  # the file may end in half a line",
        "            pass  # the file may",
        J,
    ),
    ("log/line.py", "    intact = line == with_crc(text)[:-1]", "    intact = True", J),
    (
        "log/journal.py",
        'lines, newline, rest = (rest + content).rpartition(b"\\n")',
        'lines, newline, rest = rest + content, b"\\n", b""',
        J,
    ),
    ("log/journal.py", "(rest + content).rpartition", "content.rpartition", J),
    ("log/journal.py", "not all_intact(checksums, texts)", "False", J),
    ("log/journal.py", "len(texts) * PLAIN_BYTES + sum(map(len, texts)) != len(lines)", "False", J),
    ("log/journal.py", 'len(lines) < len(block) and lines[-1:] in (b"", b"\\n")', "len(lines) < len(block)", J),
    (
        "log/journal.py",
        'str(json.loads(b\'"%s"\' % quoted)) if b"\\\\" in quoted else quoted.decode()',
        "quoted.decode()",
        J,
    ),
    (
        "log/line.py",
        "return content if safe else None",
        "return content",
        J,
    ),
    ("log/journal.py", "fs.write(self._fd, [CLOSED_LINE], self.path)", "pass", J),
    ("log/journal.py", 'fs.overwrite(fd, b" " * length, start, path)', "pass", J),
    ("log/journal.py", "            while not self._write(content):", "            if not self._write(content):", J),
    # The order of lines, and the index
    (
        "local.py",
        "        self.mark_version()\n        self.refresh()\n        return",
        "        self.mark_version()\n        return",
        L,
    ),
    ("local.py", "self.index.last_seq(record.recording, record.feature) + 1", "__import__('time').time_ns()", S),
    ("local.py", "record.feature) + 1\n", "record.feature)\n", C),
    ("log/entry.py", "        if line.order > self.newest.order:", "        if True:", I),
    ("log/entry.py", "(self.done is None or line.order > self.done.order)", "True", I),
    ("log/entry.py", "self.deleted.order > self.done.order", "False", C),
    (
        "log/index.py",
        "                if newest != self._newest:",
        "                if not self._newest and newest:",
        I,
    ),
    ("log/index.py", "            except DamageError as error:", "            except KeyError as error:", I),
    ("log/index.py", "index_paths(self.files)[:1] == paths[:1]", "True", R),
    ("log/index.py", "            if tail.closed:\n                self._ended.add(name)\n", "", I),
    ("log/index.py", "self._ended = {name for name, part in parts.items() if part.merged}", "self._ended = set()", I),
    ("log/index.py", 'index_number(self._newest or "") + 1', "index_number(index_paths(self.files)[0]) + 1", I),
    ("log/index.py", "key in self._unparsed or ", "", I),
    ("log/index.py", "key in self._entries or ", "", I),
    ("log/index.py", "(self._file is not None and key in self._file)", "False", I),
    ("log/index.py", "entry_of([line])", "Entry(line)", I),
    ("log/index.py", "self._unparsed.pop(key)", "self._unparsed[key]", I),
    ("log/index_file.py", "int(match[2], 16) != google_crc32c.value(content)", "False", I),
    ("log/index_writer.py", "    if not new:\n", "    if False:\n", I),
    ("log/index_writer.py", '    _pack_states(db)\n    db.execute("COMMIT")', '    db.execute("COMMIT")', I),
    ("log/index_writer.py", "    if without is not None:\n        _forget(db, without)\n", "", V),
    (
        "log/index_writer.py",
        '    db.execute(f"DELETE FROM texts WHERE id NOT IN',
        '    0 and db.execute(f"DELETE FROM texts WHERE id NOT IN',
        V,
    ),
    ("log/index.py", "len(new) == len(texts) and ", "", I),
    ("log/index.py", " and self._unparsed.keys().isdisjoint(new)", "", I),
    ("log/index_file.py", " and _RANDOM.fullmatch(random)", "", I),
    ("log/index_file.py", "revision == _writer(seq, journal) + random and", "True and", I),
    # Publishing and reading
    ("local.py", "{seq}-{writer_name()}", "{seq}-00000000-0-00000000", R),
    (
        "local.py",
        "        self._maps.drop(record.recording, record.feature)\n        return record",
        "        return record",
        C,
    ),
    ("local.py", "if stat.S_ISLNK(os.lstat(path).st_mode):", "if False:", L),
    ("local.py", "                time.sleep(wait_s)\n", "                raise KeyError\n", S),
    ("local.py", "GONE = (errno.ENOENT, errno.ESTALE)", "GONE = (errno.ENOENT,)", S),
    ("local.py", "        refuse_linked_items(self.revision_paths(recording, feature))\n", "", K),
    ("local.py", "        self.mark_version()\n        self.refresh()", "        self.refresh()", D),
    (
        "links.py",
        "        if stat.S_ISLNK(mode):\n            raise link_error(folder)",
        "        if False:\n            raise link_error(folder)",
        K,
    ),
    ("documents.py", "if others and not os.path.lexists", "if others and True or not os.path.lexists", S),
    # The collector
    ("maintenance/gc.py", "    refuse_links(store)\n    with hold_lease", "    with hold_lease", K),
    ("maintenance/gc.py", "if now_ns - since_ns >= grace_ns]", "if True]", R),
    ("maintenance/gc.py", "            store.folder.remove_item(path)\n", "            pass\n", L),
    ("maintenance/gc.py", "    if is_of_this_machine(name):\n        return writer_has_ended(name)\n", "", S),
    ("maintenance/gc.py", "    return now_ns - changed_ns > ABANDONED_AFTER_S * 1e9", "    return True", S),
    (
        "maintenance/gc.py",
        "now_ns = store.folder.now_ns()\n    found =",
        "now_ns = __import__('time').time_ns()\n    found =",
        S,
    ),
    ("maintenance/gc.py", "    if len(paths) < 2 or _changed_ns(paths[1]) > long_ago_ns:", "    if len(paths) < 2:", R),
    ("maintenance/gc.py", "all(part.merged for part in parts)", "True", R),
    ("maintenance/gc.py", "not any(damaged_lines(journal))", "True", R),
    ("maintenance/gc.py", "not read_lines(journal, size) and", "", R),
    ("maintenance/gc.py", "merged = bool(final) and not any(damaged_lines(path))", "merged = True", R),
    ("maintenance/gc.py", "if last > int(seq) or", "if True or", R),
    ("maintenance/gc.py", "(last == int(seq) and writer_has_ended(writer))", "last == int(seq)", R),
    (
        "maintenance/gc.py",
        "        fs.remove(store.folder.checked(store.folder.old_snapshots))\n    found.journals",
        "    found.journals",
        D,
    ),
    (
        "maintenance/gc.py",
        "        fs.remove(store.folder.checked(store.folder.old_snapshots))\n        store.compact()",
        "        store.compact()",
        D,
    ),
    ("maintenance/gc.py", "        if not _restore_item(store, path):", "        if True:", D),
    ("maintenance/gc.py", "            if path != kept:\n", "            if False:\n", V),
    (
        "log/index.py",
        "for key, since_ns in found.items() if not self._is_published(*key)}",
        "for key, since_ns in found.items()}",
        R,
    ),
    ("maintenance/lease.py", "    while not fs.link(staged, path):", "    while fs.link(staged, path) is None:", S),
    ("maintenance/lease.py", "        elif seen != first or not expiry_s or", "        elif not expiry_s or", S),
    (
        "maintenance/lease.py",
        "        if not self._is_mine():\n            raise",
        "        if False:\n            raise",
        S,
    ),
    (
        "processes.py",
        "    except ProcessLookupError:\n        return True",
        "    except ProcessLookupError:\n        return False",
        J,
    ),
    # Verifying, repairing, purging
    ("maintenance/verify.py", "        if size != record.nbytes:", "        if False:", V),
    ("maintenance/verify.py", "    if metadata != record.metadata_crc32c:", "    if False:", V),
    ("maintenance/verify.py", "    found += lost_journals(store)\n", "", V),
    (
        "maintenance/repair.py",
        "        report.orphans = _acknowledge_orphans(store, report.orphans)\n",
        "        pass\n",
        V,
    ),
    ("maintenance/repair.py", "    if array != record.crc32c:\n        return False\n", "", I),
    (
        "maintenance/repair.py",
        "key=lambda path: _seq(found[path]), reverse=True)",
        "key=lambda path: _seq(found[path]))",
        R,
    ),
    ("maintenance/purge.py", "    forget(store, recording)\n", "", V),
    (
        "maintenance/purge.py",
        "    blank_lines(journals, lambda line: _is_of(line, recording))\n",
        "",
        V,
    ),
]


def try_mutant(folder: Path, number: int) -> str:
    """``killed``, ``SURVIVED``, or why it could not be tried."""
    name, old, new, tests = MUTANTS[number]
    file = folder / "aupipe" / "store" / name
    source = file.read_text()
    if source.count(old) != 1:
        return f"STALE: {source.count(old)} places"
    file.write_text(source.replace(old, new))
    try:
        return "SURVIVED" if run_tests(folder, tests) == 0 else "killed"
    finally:
        file.write_text(source)


def run_tests(folder: Path, tests: str) -> int:
    """The exit code of some tests in the copy; a hang is a failure."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", f"tests/store/{tests}"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=240, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return 1


def main() -> int:
    chosen = [int(number) for number in sys.argv[1:]] or range(len(MUTANTS))
    survivors = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("aupipe", "tests", "docs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for tests in sorted({MUTANTS[number][3] for number in chosen}):
            assert run_tests(folder, tests) == 0, f"{tests} fails without a mutant"
        for number in chosen:
            result = try_mutant(folder, number)
            name, old, _, tests = MUTANTS[number]
            print(f"{number:3} {result:9} {name}: {old.strip().splitlines()[0]!r} ({tests})", flush=True)
            survivors += [number] * (result != "killed")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed; survivors: {survivors or 'none'}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
