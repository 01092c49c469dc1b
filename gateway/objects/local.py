"""Objects as files of a folder, which all gateway processes share.

A file begins with a header block: a magic number, the block's length, and a JSON document with
content type, metadata and ETag; the body follows. Header and body become visible together, by a
rename. The modified time is the file's. The object ``assets/a/1f0c…`` is the file
``assets/a/1f+/1f0c…+``: ``+`` is in no key, so no file is in the way of a folder, and no folder has
very many entries.

Short objects that are written together share one file, of which each has a hard link: to make a
link costs a fraction of making a file. The header block then says where each body is (``members``).

Threads do all I/O. A body that is streamed is on the disk when `put` returns; a short one
(`put_bytes`) survives the process, but perhaps not the machine.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import struct
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import merge
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

import orjson

from gateway.errors import StoreUnavailable
from gateway.objects.interface import (
    DATA_BYTES,
    NO_META,
    UNAVAILABLE,
    ObjectInfo,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
    check_key,
    check_prefix,
    check_size,
)
from gateway.objects.signed_urls import UrlSigner
from runtime.ids import new_uuid

_THREADS = 4
"""As many operations run at a time; each object that is read or written has at most one."""
_TIMEOUT_S = 30.0
"""Time for one operation of a disk, also one across a network; then the store is not available."""
_LISTED = 256
"""Objects that are looked at in one operation."""

_MAGIC = b"GWO1"
_FIXED = struct.Struct(">4sI")
_MEMBERS = "members"
_WITHOUT_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})
"""What a file system says that has no hard links, or not so many to one file."""
_MAX_HEADER_BYTES = 64 * 1024
_LOOK_BYTES = 8192
"""What is read to find a header block that is not long."""
_MARK = "+"
_TEMPORARY = "temporary" + _MARK
"""The folder of what is being written; no key leads there."""

Result = TypeVar("Result")


class LocalObjects(ObjectStore):
    """The objects below ``folder``."""

    def __init__(self, folder: Path, signer: UrlSigner) -> None:
        """``signer`` makes URLs that `gateway.objects.endpoint` serves."""
        self._folder = folder.absolute()
        self._root = str(self._folder)
        self._signer = signer
        self._threads = ThreadPoolExecutor(_THREADS, "objects")
        self._temporary = _OwnFolder(self._folder / _TEMPORARY)

    async def open(self) -> None:
        """Delete what processes that died have left half written.

        The folder is made by the first write.
        """
        await self._run(self._temporary.sweep)

    async def close(self) -> None:
        """Begin no more operations; those that were begun go on to their end."""
        self._threads.submit(self._temporary.close)
        self._threads.shutdown(wait=False)

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None,
        content_type: str,
        meta: Mapping[str, str] = NO_META,
    ) -> None:
        """Write the chunks in pieces of `DATA_BYTES`, each only when the one before is written."""
        path = self._path(key)
        file = _WrittenFile(self._temporary.new_path, _header(content_type, meta))
        last: Future[int] | None = None
        try:
            data = bytearray()
            async for chunk in chunks:
                data += chunk
                if len(data) >= DATA_BYTES:
                    last = self._threads.submit(file.write, bytes(data))
                    await _result(last)
                    data.clear()
            last = self._threads.submit(file.write, bytes(data))
            written = await _result(last)
            check_size(size, written)
            last = self._threads.submit(file.finish, path)
            await _result(last)
        except BaseException:
            self._after(last, file.discard)
            raise

    async def put_bytes(
        self, key: str, data: bytes, *, content_type: str, meta: Mapping[str, str] = NO_META
    ) -> None:
        """Write a short object in one operation of a thread."""
        path, header = self._path(key), _header(content_type, meta)
        await self._run(lambda: _write_whole(self._temporary.new_path(), path, header, data))

    async def put_batch(self, objects: Sequence[tuple[str, bytes]], *, content_type: str) -> None:
        """Write short objects in one operation of a thread: to change threads costs more."""
        alone = [one for one in objects if len(one[1]) > DATA_BYTES]
        shared = [one for one in objects if len(one[1]) <= DATA_BYTES] if alone else objects
        if len(shared) == 1:
            alone, shared = [*alone, *shared], []
        for key, data in alone:
            await self.put_bytes(key, data, content_type=content_type)
        if not shared:
            return
        paths = [self._path_text(key) for key, _ in shared]
        await self._run(lambda: _write_batch(self._temporary.new_path, paths, shared, content_type))

    async def get(self, key: str, first: int = 0, last: int | None = None) -> ObjectReader:
        """Open the file; its beginning is read in the same operation."""
        path = self._path(key)
        opened = await self._run(lambda: _open(key, path, first, last))
        return LocalReader(self, opened)

    async def stat(self, key: str) -> ObjectInfo | None:
        """Read the header block."""
        path = self._path(key)
        return await self._run(lambda: _info_at(key, path))

    async def delete(self, key: str) -> None:
        """Unlink the file. Who reads it goes on; of a shared file, the body is overwritten."""
        path = self._path(key)
        await self._run(lambda: _delete(key, path))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Look at some hundred objects at a time."""
        check_prefix(prefix)
        keys = _keys_below(self._folder / prefix, prefix, after)
        while True:
            found, has_more = await self._run(lambda: _look(keys, self._path))
            for info in found:
                yield info
            if not has_more:
                return

    async def download_url(
        self, key: str, expires_at: float, *, base_url: str = "", file_name: str = ""
    ) -> str:
        check_key(key)
        return await self._signer.download_url(key, expires_at, base_url, file_name)

    async def upload_url(
        self,
        key: str,
        expires_at: float,
        *,
        content_type: str,
        max_bytes: int,
        meta: Mapping[str, str] = NO_META,
        base_url: str = "",
    ) -> str:
        check_key(key)
        return await self._signer.upload_url(
            key, expires_at, base_url, content_type=content_type, max_bytes=max_bytes, meta=meta
        )

    def read_data(self, file: BinaryIO, at: int, size: int) -> "Future[bytes]":
        """Begin to read the next part of an open object."""
        return self._threads.submit(os.pread, file.fileno(), size, at)

    def release(self, file: BinaryIO, last: "Future[bytes] | None") -> None:
        """Close the file of an object that was read, once ``last`` has ended."""
        self._after(last, file.close)

    def _path(self, key: str) -> Path:
        return Path(self._path_text(key))

    def _path_text(self, key: str) -> str:
        check_key(key)
        folder, _, name = key.rpartition("/")
        return f"{self._root}/{folder}/{name[:2]}{_MARK}/{name}{_MARK}"

    async def _run(self, operation: Callable[[], Result]) -> Result:
        return await _result(self._threads.submit(operation))

    def _after(self, busy: "Future[Any] | None", operation: Callable[[], object]) -> None:
        """Run ``operation`` in a thread, once ``busy`` has ended, whatever the store's state."""
        if busy is not None and not busy.done():
            busy.add_done_callback(lambda _: operation())
            return
        try:
            self._threads.submit(operation)
        except RuntimeError:  # closed
            operation()


class LocalReader:
    """Reads one object: an `gateway.objects.interface.ObjectReader`."""

    __slots__ = ("_at", "_data", "_end", "_file", "_last", "_store", "info")

    def __init__(self, store: LocalObjects, opened: "_Opened") -> None:
        self._store = store
        self.info = opened.info
        self._file = opened.file
        self._data = opened.data
        self._at = opened.at
        self._end = opened.end
        self._last: Future[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._store.release(file, self._last)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._data:
            data, self._data = self._data, b""
            yield data
        while self._file is not None and self._at < self._end:
            size = min(DATA_BYTES, self._end - self._at)
            self._last = self._store.read_data(self._file, self._at, size)
            data = await _result(self._last)
            if not data:
                raise StoreUnavailable(UNAVAILABLE, cause="a file became shorter while it was read")
            self._at += len(data)
            yield data


async def _result(future: "Future[Result]") -> Result:
    """Wait for an operation of a thread. Raises `StoreUnavailable`."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise StoreUnavailable(UNAVAILABLE, cause="the disk does not respond") from error
    except OSError as error:
        raise StoreUnavailable(UNAVAILABLE, cause=str(error)) from error


# In a thread


class _OwnFolder:
    """A folder for the temporary files of this process.

    A lock file beside it says that the process lives: the kernel drops the lock of a process that
    died, and whoever starts next deletes the folder.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder = parent
        self._lock: BinaryIO | None = None
        self._making = threading.Lock()

    def sweep(self) -> None:
        """Delete what processes that died have left."""
        for left in self._parent.glob("*.lock"):
            lock = _lock(left)
            if lock is not None:
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                left.unlink(missing_ok=True)
                lock.close()

    def new_path(self) -> Path:
        """Return where a file can be written; the first call makes the folder."""
        with self._making:
            if self._lock is None:
                self._make()
        return self._folder / new_uuid()

    def close(self) -> None:
        """Remove the folder."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.with_suffix(".lock").unlink(missing_ok=True)
            lock.close()

    def _make(self) -> None:
        self._parent.mkdir(parents=True, exist_ok=True)
        lock = None
        while lock is None:
            self._folder = self._parent / new_uuid()
            lock = _lock(self._folder.with_suffix(".lock"))
        self._folder.mkdir()
        self._lock = lock


def _lock(path: Path) -> BinaryIO | None:
    """Return the file at ``path``, made if needed, locked; `None` if another process has it."""
    file = path.open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had the lock before may have deleted the file.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


class _WrittenFile:
    """One file that is being written. Each method runs in a thread, one at a time."""

    def __init__(self, new_path: Callable[[], Path], header: bytes) -> None:
        self._new_path = new_path
        self._path: Path | None = None
        self._header = header
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, data: bytes) -> int:
        """Append ``data``; return the length of the body so far."""
        if self._file is None:
            self._path = self._new_path()
            self._file = self._path.open("xb", buffering=0)
            _write_all(self._file, self._header)
        _write_all(self._file, data)
        self._size += len(data)
        return self._size

    def finish(self, path: Path) -> int:
        """Make the file visible at ``path``."""
        if self._file is None or self._path is None:
            raise AssertionError("nothing was written")
        os.fsync(self._file.fileno())
        self._file.close()
        _move(self._path, path)
        return self._size

    def discard(self) -> None:
        """Leave nothing of it."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Opened(NamedTuple):
    """An open object: its beginning, and where the next one begins and the last one ends.

    ``file`` is `None` if nothing follows.
    """

    info: ObjectInfo
    file: BinaryIO | None
    data: bytes
    at: int
    end: int


def _open(key: str, path: Path, first: int, last: int | None) -> _Opened:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        raise ObjectNotFound(key) from None
    try:
        head = os.pread(file.fileno(), DATA_BYTES, 0)
        info, begin, is_shared = _read_header(key, head, file)
        stop = info.size if last is None else min(last + 1, info.size)
        at, end = begin + first, begin + stop
        if is_shared:
            data = _read_member(key, path, file, at, end)
        else:
            data = head[at:end] or os.pread(file.fileno(), min(DATA_BYTES, max(end - at, 0)), at)
        at += len(data)
        if at < end:
            return _Opened(info, file, data, at, end)
        file.close()
        return _Opened(info, None, data, at, end)
    except BaseException:
        file.close()
        raise


def _read_member(key: str, path: Path, file: BinaryIO, at: int, end: int) -> bytes:
    """Return the whole of a body in a shared file. Raises `ObjectNotFound` if it is deleted now.

    Whoever deletes it unlinks first and overwrites then, so what has its link still is as it was.
    """
    data = os.pread(file.fileno(), end - at, at) if at < end else b""
    try:
        is_linked = path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        is_linked = False
    if not is_linked:
        raise ObjectNotFound(key)
    return data


def _info_at(key: str, path: Path) -> ObjectInfo | None:
    try:
        with path.open("rb", buffering=0) as file:
            return _read_header(key, os.pread(file.fileno(), _LOOK_BYTES, 0), file)[0]
    except (FileNotFoundError, ObjectNotFound):
        return None


def _look(keys: Iterator[str], path_of: Callable[[str], Path]) -> tuple[list[ObjectInfo], bool]:
    """Return the next objects, and whether there may be more."""
    chosen = list(islice(keys, _LISTED))
    infos = [_info_at(key, path_of(key)) for key in chosen]
    return [info for info in infos if info is not None], len(chosen) == _LISTED


def _header(
    content_type: str, meta: Mapping[str, str], members: Mapping[str, tuple[int, int]] | None = None
) -> bytes:
    """Return a header block; ``members`` are offset and length of each body of a shared file."""
    document: dict[str, object] = {
        "contentType": content_type,
        "meta": dict(meta),
        "etag": new_uuid(),
    }
    if members is not None:
        document[_MEMBERS] = members
    data = orjson.dumps(document)
    if len(data) > _MAX_HEADER_BYTES:
        raise ValueError("the metadata are too long")
    return _FIXED.pack(_MAGIC, len(data)) + data


def _read_header(key: str, data: bytes, file: BinaryIO) -> tuple[ObjectInfo, int, bool]:
    """Return what a file's header block says, where the body begins, and whether others share it.

    ``data`` is the beginning of the file. Raises `ObjectNotFound` for what is no object: a file
    whose machine went down before it was on the disk.
    """
    try:
        magic, length = _FIXED.unpack_from(data)
        begin = _FIXED.size + length
        if magic != _MAGIC or length > _MAX_HEADER_BYTES:
            raise ObjectNotFound(key)
        if len(data) < begin:
            data = os.pread(file.fileno(), begin, 0)
        document = orjson.loads(data[_FIXED.size : begin])
        status = os.fstat(file.fileno())
        size = status.st_size - begin
        is_shared = _MEMBERS in document
        if is_shared:
            at, size = document[_MEMBERS][key]
            begin += at
        info = ObjectInfo(
            key,
            size,
            document["contentType"],
            status.st_mtime,
            document["meta"],
            document["etag"],
        )
    except (struct.error, ValueError, KeyError) as error:
        raise ObjectNotFound(key) from error
    return info, begin, is_shared


def _write_whole(temporary: Path, path: Path, header: bytes, data: bytes) -> None:
    try:
        with temporary.open("xb", buffering=0) as file:
            _write_all(file, header + data)
        _move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_batch(
    new_path: Callable[[], Path],
    paths: Sequence[str],
    objects: Sequence[tuple[str, bytes]],
    content_type: str,
) -> None:
    """Write short objects, at ``paths``, as one file with a link for each."""
    members: dict[str, tuple[int, int]] = {}
    at = 0
    for key, data in objects:
        members[key] = (at, len(data))
        at += len(data)
    temporary = str(new_path())
    try:
        with open(temporary, "xb", buffering=0) as file:
            bodies = [data for _, data in objects]
            _write_all(file, b"".join([_header(content_type, NO_META, members), *bodies]))
        for path in paths:
            _link(temporary, path)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        # A file system without hard links.
        header = _header(content_type, NO_META)
        for path, (_, data) in zip(paths, objects, strict=True):
            _write_whole(new_path(), Path(path), header, data)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _link(temporary: str, path: str) -> None:
    """Make ``path`` a link to the file, in place of an older object."""
    try:
        os.link(temporary, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _link(temporary, path)
    except FileExistsError:
        # An operation that failed half-way is done again.
        other = temporary + _MARK
        os.link(temporary, other)
        os.rename(other, path)


def _delete(key: str, path: Path) -> None:
    """Unlink a file. The bytes of one body of a file that others share do not stay in it."""
    try:
        with path.open("r+b", buffering=0) as file:
            path.unlink(missing_ok=True)
            status = os.fstat(file.fileno())
            if not status.st_nlink:
                return
            info, begin, is_shared = _read_header(
                key, os.pread(file.fileno(), _LOOK_BYTES, 0), file
            )
            if is_shared:
                os.pwrite(file.fileno(), bytes(info.size), begin)
                os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    except (FileNotFoundError, ObjectNotFound):
        pass


def _write_all(file: BinaryIO, data: bytes) -> None:
    with memoryview(data) as left:
        at = 0
        while at < len(left):
            at += file.write(left[at:])


def _move(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)


def _keys_below(folder: Path, prefix: str, after: str) -> Iterator[str]:
    """Yield the keys below ``folder`` that follow ``after``, sorted; reads folders as it goes."""
    shards: list[str] = []
    folders: list[str] = []
    for entry in _entries(folder):
        if entry == _TEMPORARY:
            continue
        (shards if entry.endswith(_MARK) else folders).append(entry)
    shards.sort()
    folders.sort(key=lambda name: name + "/")
    objects = (
        name
        for shard in shards
        if _reaches(prefix + shard[: -len(_MARK)], after)
        for name in sorted(prefix + entry[: -len(_MARK)] for entry in _entries(folder / shard))
    )
    below = (f"{prefix}{name}/" for name in folders)
    for found in merge(objects, below):
        if not found.endswith("/"):
            if found > after:
                yield found
        elif _reaches(found, after):
            yield from _keys_below(folder / found[len(prefix) :], found, after)


def _reaches(beginning: str, after: str) -> bool:
    """Return whether a key with this beginning can follow ``after``."""
    return beginning >= after[: len(beginning)]


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
