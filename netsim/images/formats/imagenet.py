"""Read ILSVRC 2012, as downloaded or as extracted. Labels are positions of the sorted WordNet IDs (wnids).

    ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, or val/<wnid>/*.JPEG          split `test`
    ILSVRC2012_img_train.tar, a tar file of tar files, or train/<wnid>/*.JPEG              split `train`

Archives are read in place. Both forms give the same list, so the same hash and the same pairs.
Source: Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575; labels as in torchvision.datasets.ImageNet.
"""

import gzip
import re
import tarfile
import zlib
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, cast

import numpy as np
import scipy.io

from netsim.errors import DataError
from netsim.images.base import Split
from netsim.images.decoding import DEFAULT_SIZE, Photograph
from netsim.images.formats.folder import list_tree
from netsim.images.formats.tar import Member, extents, open_tar, walk
from netsim.images.listed import ListedImages, image_files, set_name
from netsim.images.names import TRAIN, VALIDATION, choose_split, is_clutter
from netsim.storage.files import Files

_TRAIN, _VAL, _DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
_WNID = re.compile(r"n\d{8}")


def load(path: str, *, split: Split, size: int | None) -> ListedImages:
    """List the images of a split, from the extracted tree or else from the archives.

    Raises
    ------
    DataError
        If both are missing, the devkit is missing for the validation archive, or an archive is damaged.
    """
    files = image_files(path)
    usual, archive = (TRAIN, _TRAIN) if split == "train" else (VALIDATION, _VAL)
    present = files.names()
    trees = {
        folder: wnids for folder in files.folders() if folder.casefold() in usual and (wnids := _wnids(files, folder))
    }
    folder = choose_split(split, trees, repr(files.url))
    if folder:
        class_names = _read_devkit(files)[0] if _DEVKIT in present else {}
        return list_tree(files, folder, {wnid: class_names.get(wnid, wnid) for wnid in trees[folder]}, size)
    if archive not in present:
        raise DataError(f"{files.url!r} must contain {archive} or {usual[0]}/<wnid>/; download it from ImageNet's site")
    if split == "train":
        images = _training_images(files)
        class_names = _read_devkit(files)[0] if _DEVKIT in present else {}
        return _list_archive(files, archive, images, {wnid: class_names.get(wnid, wnid) for wnid, _ in images}, size)
    if _DEVKIT not in present:
        raise DataError(f"{_VAL} requires {_DEVKIT}, which has its labels; add it to {files.url!r}")
    class_names, truth = _read_devkit(files)
    return _list_archive(files, archive, _validation_images(files, truth), class_names, size)


def _wnids(files: Files, folder: str) -> list[str]:
    """Return the class folders in a folder."""
    return [name for name in files.folders(folder) if _WNID.fullmatch(name)]


def _list_archive(
    files: Files, archive: str, images: list[tuple[str, Member]], class_names: dict[str, str], size: int | None
) -> ListedImages:
    """List images (wnid, member) of an archive as the extracted tree would be listed."""
    label = {wnid: position for position, wnid in enumerate(sorted(class_names))}
    images = sorted(images, key=lambda image: (image[0], image[1].name))
    members = [member for _, member in images]
    return ListedImages(
        name=set_name(files),
        location=files.place(archive),
        names=tuple(f"{wnid}/{member.name}" for wnid, member in images),
        labels=np.array([label[wnid] for wnid, _ in images], dtype=np.int64),
        classes=tuple(class_names[wnid] for wnid in label),
        contents=extents(files, [archive], np.zeros(len(members), np.int64), members),
        decode=Photograph(size or DEFAULT_SIZE),
    )


def _validation_images(files: Files, truth: list[str]) -> list[tuple[str, Member]]:
    """Return (wnid, member) of each validation image: the n-th by name has the n-th label of the devkit."""
    with open_tar(files, _VAL) as file:
        members = [m for m in walk(file, files.place(_VAL)) if m.name.endswith(".JPEG") and not is_clutter(m.name)]
    if len(members) != len(truth):
        raise DataError(
            f"{files.place(_VAL)} must have the {len(truth)} images that the devkit labels, got {len(members)}; "
            "download both again"
        )
    return list(zip(truth, sorted(members, key=lambda member: member.name), strict=True))


def _training_images(files: Files) -> list[tuple[str, Member]]:
    """Return (wnid, member) of each training image, from the tar file of each wnid inside the outer one."""
    images = []
    with open_tar(files, _TRAIN) as outer:
        inner = [m for m in walk(outer, files.place(_TRAIN)) if m.name.endswith(".tar") and not is_clutter(m.name)]
    for tar in inner:
        wnid = PurePosixPath(tar.name).stem
        with files.open(_TRAIN, start=tar.start, size=tar.size) as file:
            for member in walk(cast(IO[bytes], file), f"{files.place(_TRAIN)}: {tar.name}"):
                if not is_clutter(member.name):
                    images.append((wnid, Member(member.name, tar.start + member.start, member.size)))
    if not images:
        raise DataError(f"{files.place(_TRAIN)} has no images; it must be a tar file of <wnid>.tar")
    return images


def _read_devkit(files: Files) -> tuple[dict[str, str], list[str]]:
    """Return wnid -> class name, and the wnid of each validation image."""
    try:
        devkit = gzip.decompress(files.get(_DEVKIT))  # all of it, for its checksum: damage can crash scipy
        with tarfile.open(fileobj=BytesIO(devkit), mode="r:") as tar:
            contents = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
            meta, truth = (contents[name] for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"))
            assert meta is not None and truth is not None  # regular files have contents
            synsets = scipy.io.loadmat(BytesIO(meta.read()), squeeze_me=True)["synsets"]
            numbers = [int(line) for line in truth.read().split()]
        leaves = [synset for synset in synsets if synset["num_children"] == 0]
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in leaves}
        # words are not unique: there are two cranes
        names = {str(synset["WNID"]): f"{str(synset['words']).split(',')[0]} ({synset['WNID']})" for synset in leaves}
        return names, [wnids[number] for number in numbers]
    except (tarfile.TarError, zlib.error, OSError, EOFError, KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{files.place(_DEVKIT)} is not ImageNet's devkit, or damaged ({error!r})") from None
