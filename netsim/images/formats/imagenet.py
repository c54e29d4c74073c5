"""ILSVRC 2012, as it is downloaded or as it was extracted; labels are the places of wnids in their order.

    ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, or val/<wnid>/*.JPEG          the split `test`
    ILSVRC2012_img_train.tar, a tar file of tar files, or train/<wnid>/*.JPEG              the split `train`

Archives are read where they are. Both forms give the same list, so the same hash and the same pairs.
Source: Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575; labels as torchvision.datasets.ImageNet has them.
"""

import re
import tarfile
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, cast

import numpy as np
import scipy.io

from netsim.errors import DataError
from netsim.images.base import Split
from netsim.images.decoding import DEFAULT_SIZE, Photograph
from netsim.images.formats.folder import listed_tree
from netsim.images.formats.tar import Member, extents, open_tar, walk
from netsim.images.listed import ListedImages, image_files, last_name
from netsim.storage.files import Files

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
WNID = re.compile(r"n\d{8}")


def load(place: str, *, split: Split, size: int | None) -> ListedImages:
    files = image_files(place)
    folder, archive = ("train", TRAIN) if split == "train" else ("val", VAL)
    here = files.names()
    wnids = [name for name in files.folders(folder) if WNID.fullmatch(name)] if folder in here else []
    if wnids:
        called = _devkit(files)[0] if DEVKIT in here else {}
        return listed_tree(files, folder, {wnid: called.get(wnid, wnid) for wnid in wnids}, size)
    if archive not in here:
        raise DataError(f"{files.url!r} has neither {archive} nor {folder}/<wnid>/; what ImageNet's site gives fits")
    if split == "train":
        found = _training(files)
        called = _devkit(files)[0] if DEVKIT in here else {}
        return _listed(files, archive, found, {wnid: called.get(wnid, wnid) for wnid, _ in found}, size)
    if DEVKIT not in here:
        raise DataError(f"{files.url!r} has {VAL}, but not {DEVKIT}, which says what is on its images")
    called, truth = _devkit(files)
    return _listed(files, archive, _validation(files, truth), called, size)


def _listed(
    files: Files, archive: str, found: list[tuple[str, Member]], called: dict[str, str], size: int | None
) -> ListedImages:
    """Images (wnid, member) of an archive, as the extracted tree would be listed."""
    label = {wnid: place for place, wnid in enumerate(sorted(called))}
    found = sorted(found, key=lambda image: (image[0], image[1].name))
    members = [member for _, member in found]
    return ListedImages(
        name=last_name(files),
        place=files.place(archive),
        names=tuple(f"{wnid}/{member.name}" for wnid, member in found),
        labels=np.array([label[wnid] for wnid, _ in found], dtype=np.int64),
        classes=tuple(called[wnid] for wnid in label),
        contents=extents(files, [archive], np.zeros(len(members), np.int64), members),
        decode=Photograph(size or DEFAULT_SIZE),
    )


def _validation(files: Files, truth: list[str]) -> list[tuple[str, Member]]:
    """The n-th image in the order of names has the n-th label of the devkit."""
    with open_tar(files, VAL) as file:
        members = [member for member in walk(file, files.place(VAL)) if member.name.endswith(".JPEG")]
    if len(members) != len(truth):
        raise DataError(f"{files.place(VAL)} has {len(members)} images, and the devkit labels {len(truth)}")
    return list(zip(truth, sorted(members, key=lambda member: member.name), strict=True))


def _training(files: Files) -> list[tuple[str, Member]]:
    """Images of the tar files, one a wnid, in the outer one."""
    found = []
    with open_tar(files, TRAIN) as outer:
        inner = [member for member in walk(outer, files.place(TRAIN)) if member.name.endswith(".tar")]
    for tar in inner:
        wnid = PurePosixPath(tar.name).stem
        with files.open(TRAIN, start=tar.start, size=tar.size) as file:
            for member in walk(cast(IO[bytes], file), f"{files.place(TRAIN)}: {tar.name}"):
                found.append((wnid, Member(member.name, tar.start + member.start, member.size)))
    if not found:
        raise DataError(f"{files.place(TRAIN)} has no images: a tar file of <wnid>.tar fits")
    return found


def _devkit(files: Files) -> tuple[dict[str, str], list[str]]:
    """What each of the wnids is called, and the wnid of each validation image."""
    where = files.place(DEVKIT)
    try:
        with tarfile.open(fileobj=BytesIO(files.get(DEVKIT)), mode="r:gz") as tar:
            contents = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
            meta, truth = (contents[name] for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"))
            assert meta is not None and truth is not None  # regular files have contents
            synsets = scipy.io.loadmat(BytesIO(meta.read()), squeeze_me=True)["synsets"]
            numbers = [int(line) for line in truth.read().split()]
        leaves = [synset for synset in synsets if synset["num_children"] == 0]
        wnid = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in leaves}
        # words are not unique: there are two cranes
        called = {str(synset["WNID"]): f"{str(synset['words']).split(',')[0]} ({synset['WNID']})" for synset in leaves}
        return called, [wnid[number] for number in numbers]
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{where} is not ImageNet's devkit, or damaged: {error!r}") from None
