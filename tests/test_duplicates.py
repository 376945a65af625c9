from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from support import picture

from configs import common
from flowers_jax.data import duplicates, folder, splits


@pytest.mark.slow
def test_the_duplicates_of_the_real_images(flowers_dir):
    index = folder.scan(flowers_dir)
    files = duplicates.inspect(index.paths)
    assert not any(file.problem for file in files)
    pairs = duplicates.find(files)
    copies = Counter(Path(path).read_bytes() for path in index.paths)
    assert (
        sum(pair.kind == "exact" for pair in pairs)
        == sum(n * (n - 1) // 2 for n in copies.values())
        == 4
    )
    brute_force = sum(
        (a.hash ^ b.hash).bit_count() <= 4 for i, a in enumerate(files) for b in files[:i]
    )
    assert len(pairs) == brute_force == 28

    groups = duplicates.groups(pairs, len(index))
    config = common.get_config().data
    config.update(split="stratified", test_fraction=0.15)
    split = splits.stratified_split(index, groups, config)
    side = {path: i for i, images in enumerate(split) for path in images.paths}
    assert len(side) == 4317
    assert all(side[index.paths[p.first]] == side[index.paths[p.second]] for p in pairs)


def test_a_group_is_made_of_duplicates_and_their_duplicates(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for path, seed in zip(paths, (1, 2, 1, 3, 1), strict=True):
        picture(size=(64, 64), seed=seed).save(path)
    with Image.open(paths[2]) as image:
        image.resize((50, 50)).save(paths[2])  # near the first, which has the bytes of the last
    pairs = duplicates.find(duplicates.inspect(paths))
    assert {pair.kind for pair in pairs} == {"exact", "near"}
    a, b, c, d, e = duplicates.groups(pairs, 5)
    assert a == c == e
    assert len({a, b, d}) == 3
    assert duplicates.groups([], 3).tolist() == [0, 1, 2]
