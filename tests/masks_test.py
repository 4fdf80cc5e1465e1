"""Masks as a mapping, on a model, and in a file."""

import common
import linear
import numpy as np
import pytest

import synflow_tf


def _model(line, name="b", units=4):
    a, b = linear.dense(line, 5, "a"), linear.dense(line, units, name)
    return linear.chain(line, a, b, shape=(6,))


def _masks():
    rng = np.random.default_rng(0)
    return synflow_tf.Masks(
        {
            "a/kernel": rng.random((6, 5)) < 0.5,
            "b/kernel": rng.random((5, 4)) < 0.5,
        },
        history=[(0.75, 40, 3.5), (0.5, 25, 3.25)],
        log10_flow=1.5,
    )


def test_masks_are_a_read_only_mapping_of_bool_arrays():
    array = np.array([[1, 0, 0], [0, 0, 0.0]])
    masks = synflow_tf.Masks({"w": array})
    assert dict(masks).keys() == {"w"} and len(masks) == 1
    assert masks["w"].dtype == bool
    with pytest.raises(ValueError, match="read-only"):
        masks["w"][0, 0] = False
    array[:] = 0  # changes nothing
    np.testing.assert_array_equal(
        masks["w"], [[True, False, False]] + [[0] * 3]
    )


def test_sparsity_density_and_compression_are_of_all_weights():
    masks = synflow_tf.Masks({"v": [1, 0], "w": [1, 0, 0, 0, 0, 0]})
    assert (masks.size, masks.kept) == (8, 2)
    assert (masks.sparsity, masks.density) == (0.75, 0.25)
    assert masks.compression == 4.0
    assert synflow_tf.Masks({"v": [0]}).compression == float("inf")


@pytest.mark.parametrize("bad", [{}, None, [1, 0]])
def test_masks_must_be_a_mapping_with_a_mask(bad):
    with pytest.raises(ValueError, match="Argument `masks` must be a mapping"):
        synflow_tf.Masks(bad)


@pytest.mark.parametrize("bad", [[0.5], [2], [-1], [np.nan]])
def test_values_other_than_0_and_1_are_refused(bad):
    with pytest.raises(ValueError, match="0 .removed. and 1.*'w'"):
        synflow_tf.Masks({"w": bad})


def test_masks_are_equal_if_paths_and_values_are():
    masks = _masks()
    assert masks == synflow_tf.Masks(masks)
    assert masks != synflow_tf.Masks({"a/kernel": masks["a/kernel"]})
    other = dict(masks)
    other["a/kernel"] = ~other["a/kernel"]
    assert masks != synflow_tf.Masks(other)
    assert masks != 3


def test_the_table_has_a_line_for_each_weight_and_the_sum():
    masks = _masks()
    heading, first, *_, last = (x.split() for x in str(masks).splitlines())
    assert heading == ["weight", "shape", "kept", "of", "density"]
    kept = np.count_nonzero(masks["a/kernel"])
    assert first[0] == "a/kernel"
    assert first[-3:] == [str(kept), "30", f"{kept / 30:.3%}"]
    assert last == ["all", str(masks.kept), "50", f"{masks.density:.3%}"]


def test_apply_sets_the_removed_weights_to_0_and_no_other(line):
    model, masks = _model(line), _masks()
    before = common.values(model)
    assert masks.apply(model) is model
    for path, value in common.values(model).items():
        kept = masks.get(path, True)
        np.testing.assert_array_equal(value, np.where(kept, before[path], 0))
    # They are read back from the zeros.
    assert synflow_tf.Masks.from_model(model) == masks
    only_a = synflow_tf.Masks.from_model(model, prunable="a")
    assert list(only_a) == ["a/kernel"]


@pytest.mark.parametrize("method", ["apply", "enforce", "release"])
def test_masks_of_another_model_change_nothing(line, method):
    masks = _masks()
    for model in (_model(line, name="c"), _model(line, units=3)):
        before = common.state(model)
        with pytest.raises(ValueError, match="model that the masks are of"):
            getattr(masks, method)(model)
        assert common.state(model) == before


def test_a_file_gives_back_masks_and_history(tmp_path):
    masks = _masks()
    path = tmp_path / "pruned.masks"
    masks.save(path)
    loaded = synflow_tf.Masks.load(path)
    assert loaded == masks and list(loaded) == list(masks)
    assert loaded.history == masks.history
    assert loaded.log10_flow == masks.log10_flow


def test_a_file_without_flow_gives_back_that_it_is_not_known(tmp_path):
    synflow_tf.Masks({"w": [1, 0]}).save(tmp_path / "m.npz")
    loaded = synflow_tf.Masks.load(tmp_path / "m.npz")
    assert np.isnan(loaded.log10_flow) and loaded.history == ()


def test_a_file_takes_a_bit_for_each_weight_and_no_pickle(tmp_path):
    rng = np.random.default_rng(0)
    masks = synflow_tf.Masks({"w": rng.random((1000, 800)) < 0.5})
    masks.save(tmp_path / "m.npz")
    assert (tmp_path / "m.npz").stat().st_size < 800_000 / 8 + 2000
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert set(file) == {"meta", "bits"}


@pytest.mark.parametrize("part", [0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_with_the_way_out(tmp_path, part):
    path = tmp_path / "m.npz"
    _masks().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match="m.npz.*damaged.*from_model"):
        synflow_tf.Masks.load(path)


def test_other_files_are_refused(tmp_path):
    text, other = tmp_path / "a.txt", tmp_path / "b.npz"
    text.write_text("no masks")
    np.savez(other, x=[1, 2])
    for path in (text, other):
        with pytest.raises(ValueError, match="that `Masks.save` wrote"):
            synflow_tf.Masks.load(path)
    with pytest.raises(FileNotFoundError):
        synflow_tf.Masks.load(tmp_path / "nowhere.npz")
