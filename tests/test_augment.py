import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from flowers_jax.data import augment

RANGES = {"rotation_degrees": 15.0, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": True}
STUDY = augment.transforms(RANGES)


def smooth_image(size=48):
    """A random image without the sharp edges that make any two interpolations differ."""
    noise = np.random.default_rng(0).uniform(0, 255, (size, size, 3))
    return scipy.ndimage.gaussian_filter(noise, (2, 2, 0)).astype(np.float32)


@pytest.mark.parametrize(
    ("degrees", "zoom_row", "zoom_column"), [(15, 1.1, 0.9), (-7, 0.95, 1.0), (0, 1, 1)]
)
def test_warp_is_the_affine_transform_of_keras(degrees, zoom_row, zoom_column):
    # The legacy function itself needs scipy.ndimage.interpolation, which SciPy has removed; this
    # is its matrix, computed as it does: rotation times zoom in (x, y), swapped to (row, column).
    theta = np.deg2rad(degrees)
    rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    matrix = (rotation @ np.diag([zoom_column, zoom_row]))[::-1, ::-1]
    image = smooth_image()
    centre = (np.array(image.shape[:2]) - 1) / 2
    expected = np.stack(
        [
            scipy.ndimage.affine_transform(
                image[..., c], matrix, centre - matrix @ centre, order=1, mode="nearest"
            )
            for c in range(3)
        ],
        axis=-1,
    )
    ours = augment.warp(
        jnp.asarray(image),
        augment.affine_matrix(
            jnp.float32(theta), jnp.array([zoom_row, zoom_column]), jnp.array([False, False])
        ),
    )
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_no_coordinate_goes_through_a_matrix_product():
    # Which GPUs and TPUs round to 11 or 8 bits; a CPU does not, so only the program shows it.
    program = str(jax.make_jaxpr(augment.warp)(smooth_image(9), jnp.eye(2)))
    assert "gather" in program
    assert "dot_general" not in program


def test_flips_are_exact():
    image = jnp.asarray(smooth_image(9))
    for flip, expected in (
        ([True, False], image[::-1]),
        ([False, True], image[:, ::-1]),
        ([True, True], image[::-1, ::-1]),
    ):
        matrix = augment.affine_matrix(jnp.float32(0), jnp.ones(2), jnp.array(flip))
        np.testing.assert_array_equal(augment.warp(image, matrix), expected)


def test_angles_zooms_and_flips_are_distributed_as_declared():
    keys = jax.random.split(jax.random.key(0), 4000)
    matrices = np.asarray(jax.vmap(lambda key: augment.random_matrix(key, **RANGES))(keys))
    zooms = np.linalg.norm(matrices, axis=1)
    assert 0.9 <= zooms.min() < 0.901
    assert 1.099 < zooms.max() <= 1.1
    assert abs(np.corrcoef(zooms.T)[0, 1]) < 0.05  # one factor per axis
    signs = np.sign(np.diagonal(matrices, axis1=1, axis2=2))
    np.testing.assert_allclose((signs < 0).mean(axis=0), 0.5, atol=0.03)
    degrees = np.rad2deg(np.arctan2(matrices[:, 0, 1] * signs[:, 1], np.abs(matrices[:, 1, 1])))
    assert np.abs(degrees).max() <= 15.01
    quartiles = np.quantile(degrees, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [-7.5, 0, 7.5], atol=0.7)


def test_flips_not_asked_for_do_not_happen():
    still = augment.transforms({"horizontal_flip": True})
    images = jnp.asarray(np.stack([smooth_image(8)] * 64))
    out = np.asarray(augment.augment(images, jnp.arange(64), jax.random.key(1), still))
    same = (out == images).all(axis=(1, 2, 3))
    mirrored = (out == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 15 < mirrored.sum() < 49


def test_an_image_is_warped_by_its_index_and_the_key_whatever_its_batch():
    images = jnp.asarray(np.stack([smooth_image(12)] * 4))
    key = jax.random.key(3)
    whole = augment.augment(images, jnp.array([4, 5, 6, 7]), key, STUDY)
    part = augment.augment(images[:2], jnp.array([6, 4]), key, STUDY)
    np.testing.assert_array_equal(part, whole[jnp.array([2, 0])])
    other = augment.augment(images, jnp.array([4, 5, 6, 7]), jax.random.key(4), STUDY)
    assert not np.allclose(whole, other)
    assert not np.allclose(whole[0], whole[1])


def brighter(image, key, brightness=0.0):
    return image + jax.random.uniform(key, minval=0.0, maxval=brightness)


def inverted(image, key, invert=False):
    return 255 - image


def test_a_new_augmentation_is_one_entry_and_the_order_is_that_of_the_config(monkeypatch):
    monkeypatch.setitem(augment.AUGMENTATIONS, "inverted", inverted)
    monkeypatch.setitem(augment.AUGMENTATIONS, "brighter", brighter)
    image = jnp.zeros((1, 2, 2, 3), jnp.uint8)

    def apply(settings):
        chosen = augment.transforms(settings)
        return np.asarray(augment.augment(image, jnp.arange(1), jax.random.key(0), chosen))

    first = apply({"brightness": 50.0, "zoom": 0.0, "invert": True})
    last = apply({"invert": True, "brightness": 50.0})
    amount = apply({"brightness": 50.0})  # the same draw, whatever else is chosen
    assert 0 < amount.max() < 50
    np.testing.assert_array_equal(first, 255 - amount)
    np.testing.assert_array_equal(last, 255 + amount)
    # What is left out, or has its default, changes nothing.
    assert augment.transforms({"brightness": 0.0, "zoom": 0.0}) == ()
    assert len(augment.transforms({"zoom": 0.1, "horizontal_flip": True})) == 1
