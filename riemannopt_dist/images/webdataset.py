"""WebDataset tars: the files of a sample share all of their name up to its first dot.

An image is key.jpg, .jpeg, .png or the like, its label key.cls, a class index or a synset in plain text; any
other member is passed over. Members are read where they lie: nothing is ever unpacked or unpickled.
"""

import io
import tarfile
import threading
from pathlib import PurePosixPath

import pyarrow as pa

from riemannopt_dist.images.files import Files
from riemannopt_dist.images.image_ref import SUFFIXES, ImageRef, UnreadableImage
from riemannopt_dist.images.labels import class_index
from riemannopt_dist.stores import retried

CLASS = "cls"
BUFFER = 1 << 20  # one request for several headers where members are small
_LONGEST_LABEL = 64


def list_tar(files: Files, uri: str, prefix: str) -> list[ImageRef]:
    """The images of a tar; ids are `prefix`/member. A damaged one is itself an entry, with the reason."""
    return retried(lambda: _list(files, uri, prefix), uri)


def _list(files: Files, uri: str, prefix: str) -> list[ImageRef]:
    members: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, str] = {}
    with files.open(uri) as opened, io.BufferedReader(opened, BUFFER) as stream:
        length = opened.size()
        damage = _index(stream, members, labels)
    refs = [_ref(name, member, labels, uri, prefix, length) for name, member in members.items()]
    keys = {_key(name) for name in members}
    refs += [
        ImageRef(f"{prefix}/{key}.{CLASS}", uri, None, "a label without an image")
        for key in labels
        if key not in keys
    ]
    if damage:
        refs.append(ImageRef(prefix, uri, None, f"damaged tar, after {len(members)} images: {damage}"))
    return refs


def _index(stream: io.BufferedReader, members: dict[str, tarfile.TarInfo], labels: dict[str, str]) -> str:
    """Collect images by name and labels by key; what is wrong with the archive, "" if nothing."""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if any(part.startswith(".") and part != ".." for part in name.split("/")):
                    continue
                if name.lower().endswith(SUFFIXES):
                    members[name] = member  # a later one replaces an earlier one, as in unpacking
                elif member.isreg() and _extension(name) == CLASS:
                    stream.seek(member.offset_data)
                    labels[_key(name)] = stream.read(min(member.size, _LONGEST_LABEL)).decode(
                        "utf-8", "replace"
                    )
            # tarfile takes whatever is not a header for the end; a true end is a block of zeros.
            stream.seek(archive.offset)
            end = stream.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        return str(error)
    if len(end) < tarfile.BLOCKSIZE:
        return "it ends without an end mark"
    return "what follows is not a header" if any(end) else ""


def _ref(
    name: str, member: tarfile.TarInfo, labels: dict[str, str], uri: str, prefix: str, length: int
) -> ImageRef:
    label, reason = None, None
    if labels:
        text = labels.get(_key(name))
        label, reason = (None, f"no .{CLASS} beside it") if text is None else class_index(text)
    if name.startswith("/") or ".." in name.split("/"):
        reason = "its name leads out of the archive"
    elif not member.isreg() or member.issparse():
        reason = "not a regular file"
    elif member.offset_data + member.size > length:
        reason = "the archive ends inside it"
    return ImageRef(f"{prefix}/{name}", uri, label, reason, member.offset_data, member.size)


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split(".", 1)[0]))


def _extension(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[2].lower()


class TarImages:
    """The images of one tar, opened when the first is read. Any thread may read."""

    def __init__(self, files: Files, uri: str) -> None:
        self._files = files
        self._uri = uri
        self._lock = threading.Lock()
        self._file: pa.NativeFile | None = None

    def read(self, ref: ImageRef) -> bytes:
        """The bytes of the member at the ref's offset."""
        with self._lock:
            file = self._file = self._file or retried(lambda: self._files.open(self._uri), self._uri)
        data = bytes(retried(lambda: file.read_at(ref.size, ref.offset), self._uri))
        if len(data) != ref.size:
            raise UnreadableImage("the archive ends inside it")
        return data

    def close(self) -> None:
        """Close the tar."""
        if self._file is not None:
            self._file.close()
