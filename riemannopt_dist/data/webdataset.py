"""Images in tars: WebDatasets, and folders of images that were packed.

An image is key.jpg, .jpeg, .png or the like, its label key.cls: a class index, a synset or a class's name in
plain text. Other files of the example `key` are passed over, images too: key.seg.png, key.mask.jpg. Members
are read where they lie: nothing is ever unpacked or unpickled.
"""

import io
import tarfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from riemannopt_dist.data.class_folders import Placed, placed
from riemannopt_dist.data.classes import class_index
from riemannopt_dist.data.examples import CLASS, Member, examples_of, images_of
from riemannopt_dist.data.files import LARGEST, Files, check_length
from riemannopt_dist.data.image_ref import ImageRef
from riemannopt_dist.storage.addresses import shown_path
from riemannopt_dist.storage.errors import retried

BUFFER = 1 << 20  # one request for several headers where members are small
_LONGEST_LABEL = 256
LONGEST_HEADER = 1 << 20
"""Bytes of a header: a member's name and the like."""


@dataclass
class _Members:
    """What a tar holds: its members by name, the texts of labels by name, and what is wrong with it."""

    files: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    damage: str = ""


def list_tar(files: Files, uri: str, prefix: str, extensions: Collection[str] | None = None) -> list[Placed]:
    """The images of a tar; ids are `prefix`/member. A damaged one is itself an entry, with the reason.

    `extensions` are those of the examples' images, in lower case; if not given, those of all formats.
    """
    refs = retried(lambda: _list(files, uri, prefix, extensions), uri)
    tar = shown_path(uri)
    return [placed(ref, tar, ref.image_id.removeprefix(f"{prefix}/")) for ref in refs]


def _list(files: Files, uri: str, prefix: str, extensions: Collection[str] | None) -> list[ImageRef]:
    with files.open(uri) as opened, _Headers(opened, BUFFER) as stream:
        length = opened.size()
        members = _read_members(stream)
    examples = examples_of(members.files, extensions)
    images = images_of(examples, extensions)
    classes = [part for example in examples.values() for part in example if _is_label(part, members)]
    labels = {part.key: members.labels[part.name] for part in classes}
    refs = [
        ImageRef(f"{prefix}/{part.name}", uri, None, "a label without an image")
        for part in classes
        if not any(other in images for other in examples[part.key])
    ]
    for image, doubt in images.items():
        member = members.files[image.name]
        label, reason = _label(labels, image.key) if doubt is None else (None, doubt)
        reason = _fault(image.name, member, length) or reason
        refs.append(ImageRef(f"{prefix}/{image.name}", uri, label, reason, member.offset_data, member.size))
    if members.damage:
        reason = f"damaged tar, after {len(images)} images: {members.damage}"
        refs.append(ImageRef(prefix, uri, None, reason))
    return refs


class _Headers(io.BufferedReader):
    """A tar of which only headers and labels are read, and so little at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes. Raises tarfile.ReadError for more than LONGEST_HEADER."""
        if size is None or not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes, expected at most {LONGEST_HEADER}")
        return super().read(size)


def _read_members(stream: io.BufferedReader) -> _Members:
    """What a tar holds, but for folders and hidden names."""
    members = _Members()
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.size < 0:  # from here tarfile would go back, and round and round
                    members.damage = f"the size of {member.name!r} is {member.size}"
                    return members
                name = member.name.removeprefix("./")
                if member.isdir() or any(_is_hidden(part) for part in name.split("/")):
                    continue
                members.files[name] = member  # a later one replaces an earlier one, as in unpacking
                if member.isreg() and name.lower().endswith(f".{CLASS}"):
                    stream.seek(member.offset_data)
                    text = stream.read(min(member.size, _LONGEST_LABEL))
                    members.labels[name] = text.decode("utf-8-sig", "replace")
            # tarfile takes whatever is not a header for the end; a true end is a block of zeros.
            stream.seek(archive.offset)
            end = stream.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        members.damage = str(error)
        return members
    if len(end) < tarfile.BLOCKSIZE:
        members.damage = "it ends without an end mark"
    elif any(end):
        members.damage = "what follows is not a header"
    return members


def _is_label(part: Member, members: _Members) -> bool:
    return part.extension == CLASS and part.name in members.labels


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part != ".."


def _label(labels: Mapping[str, str], key: str) -> tuple[int | None, str | None]:
    """The class index of the example `key`, or why it has none; neither where the tar holds no labels."""
    if not labels:
        return None, None
    text = labels.get(key)
    return (None, f"no .{CLASS} beside it") if text is None else class_index(text)


def _fault(name: str, member: tarfile.TarInfo, length: int) -> str | None:
    """Why a member cannot be read from a tar of `length` bytes."""
    if name.startswith("/") or ".." in name.split("/"):
        return "its name leads out of the archive"
    if not member.isreg() or member.issparse():
        return "not a regular file"
    if member.size > LARGEST:
        return f"too large: {member.size} bytes"
    if member.offset_data + member.size > length:
        return "the archive ends inside it"
    return None


class TarImages:
    """The images of one tar, opened by each thread that reads. Any thread may read."""

    def __init__(self, files: Files, uri: str) -> None:
        self._files = files
        self._uri = uri
        self._lock = threading.Lock()
        self._opened: dict[int, pa.NativeFile] = {}

    def read(self, ref: ImageRef) -> bytes:
        """The bytes of the member at the ref's offset."""
        file = self._file()
        return retried(lambda: _part(file, ref), self._uri)

    def _file(self) -> pa.NativeFile:
        """The tar as this thread has it: one handle has one position, which threads would wait for."""
        thread = threading.get_ident()
        if thread not in self._opened:
            opened = retried(lambda: self._files.open(self._uri), self._uri)
            with self._lock:
                self._opened[thread] = opened
        return self._opened[thread]

    def close(self) -> None:
        """Close the tar."""
        for file in self._opened.values():
            file.close()


def _part(file: pa.NativeFile, ref: ImageRef) -> bytes:
    data = bytes(file.read_at(ref.size, ref.offset))
    check_length(len(data), ref.size or 0)
    return data
