"""Folders of Hugging Face's datasets: splits, columns, and incomplete datasets."""

import shutil
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, DatasetDict

from netsim.errors import DataError, SettingsError
from netsim.images import load_images
from netsim.images.formats import huggingface
from support import image_formats
from support.image_formats import dataset, open_made, truncate


def test_one_saved_set_is_both_splits(tmp_path):
    dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1]).save_to_disk(tmp_path / "one")
    for split in ("train", "test"):
        assert load_images(f"hf:{tmp_path / 'one'}", split).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "name", ["{}/0000.parquet", "{}/part-00000.parquet", "data/{}-00000-of-00001.parquet", "ant_{}.parquet"]
)
def test_splits_of_parquet_are_found_in_names_of_folders_and_files(tmp_path, name):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 5), [2, 0, 1, 1, 2])
    for split, rows in {"train": [0, 1, 2], "validation": [3, 4]}.items():
        (tmp_path / name.format(split)).parent.mkdir(exist_ok=True)
        made.select(rows).to_parquet(tmp_path / name.format(split))
    assert load_images(f"hf:{tmp_path}", "train").labels.tolist() == [2, 0, 1]
    assert load_images(f"hf:{tmp_path}", "test").labels.tolist() == [1, 2]


def test_of_several_sets_in_a_folder_one_has_to_be_given(tmp_path):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    for folder in ("coarse", "fine"):
        (tmp_path / folder / "test").mkdir(parents=True)
        made.to_parquet(tmp_path / folder / "test/0000.parquet")
    with pytest.raises(DataError, match="has several datasets, coarse/test and fine/test; give the folder of one"):
        load_images(f"hf:{tmp_path}")
    assert load_images(f"hf:{tmp_path}/fine").labels.tolist() == [2, 0, 1]


def test_the_split_that_is_used_may_be_chosen(tmp_path):
    """The Hub's ImageNet has test images without labels."""
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    for split in ("test", "dev"):
        unlabelled = made.map(lambda row, split=split: {"label": -1 if split == "test" else row["label"]})
        unlabelled.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"got others for 3 of 3 images"):
        load_images(f"hf:{tmp_path}")
    assert load_images(f"hf:{tmp_path}?test=dev").labels.tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"must include val, got dev, test; select one with \?test=SPLIT"):
        load_images(f"hf:{tmp_path}?test=val")


def test_where_a_set_has_several_labels_one_is_chosen(tmp_path):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    coarse = made.add_column("coarse", [1, 1, 0]).cast_column("coarse", ClassLabel(names=["insect", "pet"]))
    coarse.save_to_disk(tmp_path)
    with pytest.raises(
        DataError, match=r"one column of labels, got several \(label, coarse\); select one with \?label=COLUMN"
    ):
        load_images(f"hf:{tmp_path}")
    images = load_images(f"hf:{tmp_path}?label=coarse")
    assert images.labels.tolist() == [1, 1, 0] and images.classes == ("insect", "pet")
    with pytest.raises(SettingsError, match="did you mean 'coarse'"):
        load_images(f"hf:{tmp_path}?label=coarsse")
    with pytest.raises(SettingsError, match=r"no option 'lable'.*did you mean 'label'"):
        load_images(f"hf:{tmp_path}?lable=coarse")


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_images_without_bytes_or_labels_are_not_passed_over(tmp_path, kind):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    pointing = made.map(
        lambda row, k: {"image": {"bytes": None, "path": "gone.jpg"}} if k == 1 else row, with_indices=True
    )
    unlabelled = made.map(lambda row, k: {"label": -1 if k == 2 else row["label"]}, with_indices=True)

    def save(some, name):
        folder = tmp_path / name
        if kind == "arrow":
            # save_to_disk would fetch gone.jpg; what it writes is a stream of record batches
            folder.mkdir()
            (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
            with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, some.data.schema) as out:
                out.write_table(some.data.table)
        else:
            folder.mkdir()
            pq.write_table(some.data.table, folder / "0000.parquet")
        return f"hf:{folder}"

    images = load_images(save(pointing, "pointing"))
    assert images.inspect().unreadable == {1: huggingface.NULL} and images.names[1] == "gone.jpg"
    with pytest.raises(DataError, match=r"got others for 1 of 3 images in .*; the first is -1, of image 2"):
        load_images(save(unlabelled, "unlabelled"))


@pytest.mark.parametrize("data", [b"", bytes(100), None])
def test_images_of_parquet_without_a_picture_are_named_as_what_they_are(tmp_path, data):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    rows = made.data.table.column("image").to_pylist()
    rows[1] = {"bytes": data, "path": None}
    kind = made.data.schema.field("image").type
    table = made.data.table.set_column(1, "image", pa.array(rows, kind))
    pq.write_table(table, tmp_path / "0000.parquet")
    expected = {b"": "empty", bytes(100): "not an image: 100 bytes, all zero", None: huggingface.NULL}[data]
    assert load_images(f"hf:{tmp_path}").inspect().unreadable == {1: expected}
    rows[1] = None  # not even a path
    pq.write_table(table.set_column(1, "image", pa.array(rows, kind)), tmp_path / "0000.parquet")
    assert load_images(f"hf:{tmp_path}").inspect().unreadable == {1: huggingface.NULL}


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "dev"), ("train", "eval")])
def test_splits_have_any_usual_name(tmp_path, train, test):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    for name, rows in {train: [0, 1], test: [2]}.items():
        made.select(rows).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
        (tmp_path / f"._{name}-00000-of-00001.parquet").write_bytes(b"x")
    DatasetDict({train: made.select([0, 1]), test: made.select([2])}).save_to_disk(tmp_path / "saved")
    for root in (tmp_path, tmp_path / "saved"):
        assert load_images(f"hf:{root}", "train").labels.tolist() == [2, 0]
        assert load_images(f"hf:{root}", "test").labels.tolist() == [1]


def test_one_of_two_validation_splits_has_to_be_selected(tmp_path):
    made = dataset(image_formats.photographs(np.random.default_rng(0), 3), [2, 0, 1])
    DatasetDict({"val": made.select([0]), "validation": made.select([1, 2])}).save_to_disk(tmp_path)
    with pytest.raises(DataError, match=r"got val and validation; select one with \?test=SPLIT"):
        load_images(f"hf:{tmp_path}")
    assert load_images(f"hf:{tmp_path}?test=val").labels.tolist() == [2]


def test_a_row_group_too_large_to_be_read_for_one_image_is_refused(local, monkeypatch):
    monkeypatch.setattr(huggingface, "ROW_GROUP", 1000)
    with pytest.raises(DataError, match="write it again with row_group_size=100"):
        open_made(*local["hf_parquet"])


@pytest.mark.parametrize(
    "harm", [lambda path: truncate(path, 3000), lambda path: path.unlink(), lambda path: path.write_bytes(b"x")]
)
@pytest.mark.parametrize("name", ["hf_arrow", "hf_parquet"])
def test_a_dataset_that_is_not_whole_is_refused(local, tmp_path, name, harm):
    made, root = local[name]
    shutil.copytree(root, tmp_path / "copy")
    path = next((tmp_path / "copy").glob("**/*-00001-of-00002.*"))
    harm(path)
    with pytest.raises(DataError, match=r"damaged|lacks a file|has 1 of 2 files"):
        open_made(made, str(tmp_path / "copy"))


@pytest.mark.parametrize("place", [*range(8, 1800, 60), -9, -8])
def test_a_damaged_footer_of_parquet_is_refused_or_harmless(local, tmp_path, place):
    """pyarrow has an error of its own for each way to be damaged."""
    made, root = local["hf_parquet"]
    shutil.copytree(root, tmp_path / "copy")
    path = next((tmp_path / "copy").glob("**/*-00001-of-00002.*"))
    data = bytearray(path.read_bytes())
    data[-place if place > 0 else place] ^= 255
    path.write_bytes(data)
    with suppress(DataError):
        images = open_made(made, str(tmp_path / "copy"))
        images.read(range(12))
        assert images.labels.tolist() == made.labels


def test_a_row_group_of_another_length_than_its_metadata_tell_is_refused():
    huggingface._require_rows([1, 2], 2, "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet must have 3 rows, as its metadata tell, got 2; copy it again"):
        huggingface._require_rows([1, 2], 3, "x.parquet")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no dataset in"),
        ({"dataset_dict.json": '{"splits": ["train"]}'}, "must include test or val or .*, got train"),
        ({"state.json": "{"}, "state.json is damaged"),
        (
            {"state.json": '{"_data_files": [{"name": "a"}]}'},
            r"state.json is damaged \(filename\); copy the dataset again",
        ),
        ({"state.json": '{"_data_files": ["a"]}'}, r"state.json is damaged \(_data_files\)"),
        ({"state.json": '{"_data_files": 3}'}, r"state.json is damaged \(_data_files\)"),
        ({"dataset_dict.json": '{"splits": 3}'}, r"dataset_dict.json is damaged \(splits\)"),
        ({"dataset_dict.json": '{"splits": ["test", 3]}'}, r"dataset_dict.json is damaged \(splits\)"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_images(f"hf:{tmp_path}")
