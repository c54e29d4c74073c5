"""Lists of images: what is fetched at a time, unreadable images, and lists without some images."""

import numpy as np
import pytest

from netsim.errors import DataError
from netsim.images import listed, load_images
from netsim.images.decoding import Unreadable
from netsim.images.listed import image_files, set_name, whole_files
from netsim.storage.files import Files
from support import image_formats
from support.image_formats import PHOTOGRAPHS, open_made

SIZE = 16


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_of_a_list_without_some_images_the_others_stay_as_they_are(name, local):
    images = open_made(*local[name], size=SIZE)
    some = images.without([0, 5, 11])
    kept = [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert some.labels.tolist() == images.labels[kept].tolist() and some.classes == images.classes
    assert np.array_equal(some.read([0, 8, 4]), images.read([1, 10, 6]))
    assert some.content_hash() not in (images.content_hash(), images.without([0, 5, 10]).content_hash())
    assert images.without([]).content_hash() == images.content_hash()


@pytest.mark.parametrize("name", ["tar", "imagenet", "hf_arrow"])
def test_of_a_large_file_in_object_storage_only_the_images_asked_for_are_fetched(name, remote, monkeypatch):
    images = open_made(*remote[name])
    fetched = []
    plain = Files.get_ranges
    monkeypatch.setattr(Files, "get_ranges", lambda self, ranges: fetched.extend(ranges) or plain(self, ranges))
    images.read([4, 9])
    assert [stop - start for _, start, stop in fetched] == images.contents.sizes[[4, 9]].tolist()


def test_what_is_fetched_at_a_time_is_bounded_in_images_and_in_bytes():
    sizes = np.array([1, 1, 2**25, 2**24, 2**24, 2**26, *[1] * 100])
    groups = listed.split_into_groups(np.arange(len(sizes)), sizes)
    assert np.concatenate(groups).tolist() == list(range(len(sizes)))
    assert [len(group) for group in groups] == [2, 1, 2, 1, 64, 36]
    assert listed.split_into_groups(np.array([], dtype=int), sizes) == []


def test_unreadable_images_are_named_and_counted(tmp_path):
    image_formats.make_folder(tmp_path, np.random.default_rng(0))
    broken = [tmp_path / "test" / name / f"{k}.png" for name in ("ant", "cat") for k in range(3)]
    for path in broken:
        path.write_bytes(b"broken")
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    assert set(images.inspect().unreadable) == {0, 1, 2, 8, 9, 10}
    named = ", ".join(rf"'ant/{k}.png' \(.*\)" for k in range(3))
    expected = rf"cannot read 6 of 12 images of .*test: {named} and 3 more"
    with pytest.raises(DataError, match=expected):
        images.read(range(12))
    images.read([3, 4])


def test_progress_is_reported_after_each_image(local):
    done = []
    assert open_made(*local["folder"]).inspect(done.append).unreadable == {}
    assert done == list(range(1, 13))


def test_an_image_that_disappears_is_missing(tmp_path):
    image_formats.make_folder(tmp_path, np.random.default_rng(0))
    images = load_images(f"folder:{tmp_path}", size=SIZE)
    (tmp_path / "test/bee/1.png").unlink()
    assert images.inspect().unreadable == {5: "missing"}
    with pytest.raises(DataError, match=r"^cannot read the image 'bee/1.png' \(missing\) of .*/test$"):
        images.read([5])


def test_whole_files_are_read_in_any_order_and_identified_by_their_sizes(tmp_path):
    for name, data in {"a": b"one", "b": b"three", "c": b""}.items():
        (tmp_path / name).write_bytes(data)
    contents = whole_files(image_files(str(tmp_path)), ["a", "b", "c", "gone", "to"], [3, 5, 0, 4, -1])
    absent = [Unreadable("missing"), Unreadable("a link that leads nowhere")]
    assert contents.get(np.array([1, 0, 1, 2, 3, 4])) == [b"three", b"one", b"three", b"", *absent]
    some = contents.keep(np.array([2, 1]))
    assert some.get(np.array([0, 1])) == [b"", b"three"]
    assert (contents.stamp(), some.stamp()) == (b"3,5,0,4,-1", b"0,5")


def test_a_set_is_called_by_the_last_part_of_its_path_or_url(tmp_path):
    assert set_name(image_files(str(tmp_path / "photos/"))) == "photos"
    assert set_name(image_files("s3://bucket/more/photos/")) == "photos"
