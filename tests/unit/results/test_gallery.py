"""The gallery shows pairs of the first shard, one per target class, exactly as they are stored."""

import numpy as np

from netsim.results.gallery import gallery
from netsim.store import layout
from netsim.store.metadata import DrawMetadata


def test_pairs_are_the_first_of_each_target_class(finished):
    labels = finished.array("pairs/target_label")[...][: finished.settings.pairs.shard_size]
    first = [pair for pair in range(len(labels)) if labels[pair] not in labels[:pair]]
    assert gallery(finished).pairs.tolist() == first


def test_images_and_class_names_are_those_of_the_store(finished):
    shown, classes = gallery(finished), DrawMetadata.of(finished.record("draw", "pairs")).classes
    for index, pair in enumerate(shown.pairs):
        for kind in ("seed", "target"):
            np.testing.assert_array_equal(getattr(shown, kind)[index], finished.array(f"images/{kind}")[int(pair)])
            label = finished.array(f"pairs/{kind}_label")[int(pair)]
            assert getattr(shown, f"{kind}_labels")[index] == classes[int(label)]
        for name in finished.settings.names:
            stored = finished.array(f"inverted/{name}/image")[int(pair)]
            np.testing.assert_array_equal(shown.inverted[name][index], layout.from_stored(stored))
    assert list(shown.inverted) == list(finished.settings.names)


def test_rows_limit_the_number_of_pairs(finished):
    few = gallery(finished, rows=2)
    assert few.pairs.tolist() == gallery(finished).pairs[:2].tolist()
    assert {len(images) for images in (few.seed, few.target, *few.inverted.values(), few.seed_labels)} == {2}
