import itertools
import os
import subprocess
import sys

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from keras_grow import (
    GrowableConv2D,
    GrowableDense,
    SparseDense,
    WeightNormDense,
    growable_layers,
    plotting,
)
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.pictures import block_densities
from keras_grow.plotting import canvas
from keras_grow.policies.densities import FanIn


@pytest.fixture
def model():
    """A 4-2-2 network over images of 2 x 2 pixels, with masks and weights to check by eye."""
    model = keras.Sequential(
        [
            keras.Input((2, 2)),
            keras.layers.Flatten(),
            GrowableDense(2, "relu", name="hidden"),
            keras.layers.Dropout(0.5),
            GrowableDense(2, name="classes"),
        ]
    )
    hidden, classes = growable_layers(model)
    hidden.kernel_mask.assign([[True, True], [False, True], [False, False], [True, False]])
    hidden.kernel.assign([[1.0, -2.0], [0.0, 0.5], [0.0, 0.0], [-4.0, 0.0]])
    classes.kernel_mask.assign([[True, False], [False, False]])
    classes.kernel.assign([[3.0, 0.0], [0.0, 0.0]])
    return model


def _luminance(color):
    """Relative luminance of WCAG 2, 0 for black and 1 for white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def _image(figure, number=0):
    return np.asarray(figure.axes[number].images[0].get_array())


def _figures(model):
    """A figure of each kind, each on an axis of its own."""
    pairs = {"a": [(10, 0.9), (100, 0.95)]}
    return {
        "connections_per_input": lambda axis: plotting.connections_per_input(model, axis=axis),
        "kernel_masks": lambda axis: plotting.kernel_masks(model.layers[1], axes=axis),
        "density_per_layer": lambda axis: plotting.density_per_layer({"a": [0.1]}, axis=axis),
        "accuracy": lambda axis: plotting.accuracy_against_connections(pairs, axis=axis),
        "network": lambda axis: plotting.network(model, axis=axis),
    }


def test_the_image_of_connections_per_input_holds_the_counts(model):
    figure = plotting.connections_per_input(model)
    np.testing.assert_array_equal(_image(figure), [[2, 1], [0, 1]])
    assert figure.axes[0].get_title() == "Active connections per input of 'hidden'\n(4 in all)"
    assert figure.axes[1].get_ylabel() == "active connections per input"  # Of the color bar.


def test_what_has_grown_since_is_a_difference_that_shows_pruning_below_0(model):
    before = plotting.count_per_input(model)
    model.get_layer("hidden").grow_connections([4, 5])
    model.get_layer("hidden").prune_connections([0])
    figure = plotting.connections_per_input(model, since=before)
    np.testing.assert_array_equal(_image(figure), [[-1, 0], [2, 0]])
    assert figure.axes[0].images[0].get_clim() == (-2, 2)
    assert "(+1 in all)" in figure.axes[0].get_title()


def test_channels_of_a_shape_are_added_up():
    figure = plotting.connections_per_input(np.arange(12), (2, 3, 2))
    np.testing.assert_array_equal(_image(figure), [[1, 5, 9], [13, 17, 21]])


def test_inputs_that_are_no_image_are_bars_and_another_layer_can_be_chosen(model):
    figure = plotting.connections_per_input(model, layer="classes", largest=10)
    (bars,) = figure.axes[0].patches
    np.testing.assert_array_equal(bars.get_data().values, [1, 0])
    assert figure.axes[0].get_ylim()[1] == pytest.approx(10.5)


def test_inputs_of_a_convolution_are_its_input_maps():
    layer = GrowableConv2D(3, 2, initial_density=0.5, seed=0)
    layer.build((None, 5, 5, 4))
    expected = layer.kernel_mask.numpy().sum(axis=(0, 1, 3))
    np.testing.assert_array_equal(plotting.count_per_input(layer), expected)
    assert expected.sum() == 24


def test_a_shape_that_does_not_fit_and_a_layer_that_is_not_there_are_refused(model):
    with pytest.raises(ValueError, match=r"of 4 inputs. Received: shape=\(2, 3\), of 6"):
        plotting.connections_per_input(model, (2, 3))
    with pytest.raises(ValueError, match="Received: layer='nowhere', expected one of"):
        plotting.count_per_input(model, "nowhere")
    with pytest.raises(ValueError, match=r"in shape \(4,\). Received: shape \(3,\)"):
        plotting.connections_per_input(model, since=np.zeros(3))


def test_pictures_of_masks_are_the_masks(model):
    figure = plotting.kernel_masks(model)
    for number, layer in enumerate(growable_layers(model)):
        np.testing.assert_array_equal(_image(figure, number), layer.kernel_mask)
    assert figure.axes[0].get_title() == "hidden\n4 active (50%)"


@pytest.mark.parametrize("shape", [(7, 5), (3, 2, 5, 4), (4, 4)])
def test_a_block_is_as_bright_as_the_mean_of_its_mask(shape):
    mask = np.random.default_rng(0).random(shape) < 0.7
    flat = mask.reshape(-1, shape[-1])
    densities, (height, width) = block_densities(
        np.flatnonzero(mask), KernelAxes(shape), num_pixels=3
    )
    assert max(densities.shape) <= 3
    for row, column in np.ndindex(densities.shape):
        block = flat[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert densities[row, column] == pytest.approx(block.mean())


def test_a_sparse_layer_of_billions_of_connections_is_drawn_without_a_kernel():
    layer = SparseDense(2**16, initial_density=FanIn(1), seed=0)
    layer.build((None, 2**16))
    figure = plotting.kernel_masks(layer, num_pixels=64)
    image = _image(figure)
    assert image.shape == (64, 64)
    assert image.mean() / 100 == pytest.approx(layer.density) == pytest.approx(2.0**-16)
    assert figure.axes[1].get_ylabel() == "density of 1024 x 1024 connections (%)"


def test_axes_for_masks_must_be_as_many_as_layers(model):
    with pytest.raises(ValueError, match=r"Received: 1 axes for layers \['hidden', 'classes'\]"):
        plotting.kernel_masks(model, axes=Figure().subplots())


def test_densities_are_curves_in_percent_at_their_epochs():
    figure = plotting.density_per_layer({"a": [0.1, 0.3], "b": [0.2, 0.2]}, epochs=[5, 6])
    first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[5, 10], [6, 30]])
    np.testing.assert_allclose(second.get_xydata(), [[5, 20], [6, 20]])
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_densities_of_different_lengths_or_out_of_range_are_refused():
    with pytest.raises(ValueError, match="Received: epochs by layer {'a': 2, 'b': 1}"):
        plotting.density_per_layer({"a": [0.1, 0.2], "b": [0.1]})
    with pytest.raises(ValueError, match="layer 'a' must lie from 0 to 1"):
        plotting.density_per_layer({"a": [10, 30]})


def test_seeds_are_points_and_their_mean_is_the_line():
    networks = {"grown": [(1000, 0.97), (100, 0.9), (100, 0.92)]}
    axis = plotting.accuracy_against_connections(networks, shows_error=True).axes[0]
    line, points, _ = axis.lines
    np.testing.assert_allclose(line.get_xydata(), [[100, 9], [1000, 3]])
    np.testing.assert_allclose(points.get_xydata(), [[1000, 3], [100, 10], [100, 8]])
    assert (axis.get_xscale(), axis.get_ylabel()) == ("log", "error (%)")


def test_accuracies_in_percent_are_refused():
    with pytest.raises(ValueError, match="Accuracies of 'grown' must lie from 0 to 1"):
        plotting.accuracy_against_connections({"grown": [(100, 97.0)]})


def test_a_drawing_has_a_line_for_each_active_connection_as_wide_as_its_weight(model):
    axis = plotting.network(model).axes[0]
    drawn = {}
    for lines in axis.collections:
        assert isinstance(lines, LineCollection)
        for segment, width in zip(lines.get_segments(), lines.get_linewidths(), strict=True):
            is_solid = lines.get_linestyles()[0][1] is None
            drawn[tuple(map(tuple, segment))] = (round(width, 6), is_solid)
    # All layers are as high as the four inputs: the two units of "hidden" stand at 1 and 3.
    weights = {
        ((0, 0.5), (1, 1)): 1.0,
        ((0, 0.5), (1, 3)): -2.0,
        ((0, 1.5), (1, 3)): 0.5,
        ((0, 3.5), (1, 1)): -4.0,
        ((1, 1), (2, 1)): 3.0,
    }
    assert drawn == {ends: (round(0.3 + 2.7 * abs(w) / 4, 6), w > 0) for ends, w in weights.items()}


def test_a_drawing_has_a_circle_for_each_unit_and_pale_ones_for_those_without_connections(model):
    axis = plotting.network(model).axes[0]
    circles = [line for line in axis.lines if line.get_marker() == "o"]
    black = [line for line in circles if line.get_markeredgecolor() == "black"]
    assert sum(len(line.get_xdata()) for line in circles) == 4 + 2 + 2
    assert sum(len(line.get_xdata()) for line in black) == 3 + 2 + 1


@pytest.mark.parametrize(
    ("layers", "received"),
    [
        ([keras.Input((65,)), GrowableDense(2)], r"layers of \[65, 2\] units"),
        ([keras.Input((8, 8, 1)), GrowableConv2D(2, 3)], "of type GrowableConv2D"),
        ([keras.Input((3,)), keras.layers.ReLU()], "no dense layer"),
    ],
)
def test_networks_that_nobody_could_read_are_not_drawn(layers, received):
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        plotting.network(keras.Sequential(layers))


def test_a_network_with_branches_is_not_drawn():
    inputs = keras.Input((3,))
    outputs = keras.layers.add([GrowableDense(3)(inputs), inputs])
    with pytest.raises(ValueError, match="does not read the one before it"):
        plotting.network(keras.Model(inputs, outputs))


def test_plain_and_weight_normalized_layers_are_drawn_with_their_effective_weights():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            WeightNormDense(4, initial_density=0.5, seed=0),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2, kernel_initializer="ones"),
        ]
    )
    segments = [s for c in plotting.network(model).axes[0].collections for s in c.get_segments()]
    assert len(segments) == 6 + 8


def test_an_animation_has_a_frame_for_each_count_and_shows_the_counts_in_it(tmp_path):
    counts = [np.array([0, 0, 0, 0]), np.array([9, 0, 0, 0]), np.array([9, 9, 9, 9])]
    path = tmp_path / "growth.gif"
    figure = plotting.animate_growth(counts, path, (2, 2), epochs=[3, 4, 5], frames_per_second=2)
    np.testing.assert_array_equal(_image(figure), [[9, 9], [9, 9]])
    assert figure.axes[0].get_title() == "Epoch 5: 36 active connections"
    box = figure.axes[0].get_window_extent().extents / figure.bbox.extents[[2, 3, 2, 3]]
    with Image.open(path) as gif:
        durations, corners = [], []
        for number in range(gif.n_frames):
            gif.seek(number)
            durations.append(gif.info["duration"])
            frame = np.asarray(gif.convert("RGB"), float).mean(axis=2)
            height, width = frame.shape
            left, right = (box[[0, 2]] @ [[0.75, 0.25], [0.25, 0.75]] * width).astype(int)
            top, bottom = ((1 - box[[3, 1]]) @ [[0.75, 0.25], [0.25, 0.75]] * height).astype(int)
            corners.append([frame[y, x] > 128 for y, x in ((top, left), (bottom, right))])
    # The last stays for a second longer.
    assert corners == [[False, False], [True, False], *[[True, True]] * (len(corners) - 2)]
    assert sum(durations) == 3 * 500 + 1000


def test_counts_of_different_inputs_are_no_animation(tmp_path):
    with pytest.raises(ValueError, match=r"`counts` must hold .* Received: shape \(3,\)"):
        plotting.animate_growth([np.zeros(4), np.zeros(3)], tmp_path / "growth.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", range(5))
def test_what_is_drawn_on_an_axis_is_in_its_figure_and_labelled(model, kind):
    draw = list(_figures(model).values())[kind]
    left, right = Figure().subfigures(1, 2)
    axis = right.subplots()
    assert draw(axis) is axis.figure.canvas.figure is left.canvas.figure
    assert axis.has_data()
    assert axis.get_title()
    assert axis.get_xlabel()


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("user_style", ["default", "dark_background"])
def test_figures_are_legible_whatever_style_is_set(model, kind, user_style):
    with matplotlib.style.context(user_style):
        figure = list(_figures(model).values())[kind](None)
        axis = figure.axes[0]
        assert _luminance(axis.get_facecolor()) == 1
        behind = _luminance(figure.get_facecolor())
        assert figure.get_facecolor()[3] == axis.get_facecolor()[3] == 1
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
            light, dark = sorted([_luminance(text.get_color()), behind], reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 7
        if axis.get_legend():
            assert _luminance(axis.get_legend().get_frame().get_facecolor()) == 1
            assert all(_luminance(t.get_color()) == 0 for t in axis.get_legend().get_texts())


def test_the_palette_gets_lighter_from_color_to_color_and_stands_out_from_white():
    luminances = [_luminance(color) for color in canvas.COLOURS]
    assert all(np.diff(luminances) > 0.02)
    assert luminances[-1] < 0.5


def test_no_two_curves_share_marker_and_line_before_a_color_comes_back():
    styles = [tuple(canvas.style(number).items()) for number in range(42)]
    assert len(set(styles)) == 42
    for one, other in itertools.combinations(range(7), 2):
        assert canvas.style(one)["marker"] != canvas.style(other)["marker"]


def _run(code, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_matplotlib_the_package_works_and_a_figure_says_what_to_install(tmp_path):
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "import keras_grow\n"
        "print('in')\n"
        "try:\n    keras_grow.plotting.density_per_layer({'a': [0.5]})\n"
        "except ImportError as error:\n    print(error)"
    )
    printed = _run(code, tmp_path)
    assert printed.startswith("in\n")
    assert 'pip install "keras_grow[plotting]"' in printed


def test_figures_are_written_without_a_display_and_pyplot_keeps_none(tmp_path):
    code = (
        "import keras_grow\n"
        "keras_grow.plotting.density_per_layer({'a': [0.1, 0.5]}).savefig('a.png')\n"
        "from matplotlib import pyplot\n"
        "print(pyplot.get_fignums())"
    )
    assert _run(code, tmp_path) == "[]\n"
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("RGBA"))[..., 3].min() == 255
