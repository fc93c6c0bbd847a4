"""Damages to files: what disks, networks, editors and enemies do to them."""

import io
import json
import pathlib
import re
import zipfile
from collections.abc import Callable

import h5py
import numpy as np

_OURS = re.compile("growable|weight_norm|sparse|mean_only")
Damage = Callable[[bytes, np.random.Generator], bytes]


def flip_bits(data: bytes, random: np.random.Generator) -> bytes:
    """Up to eight bits flip."""
    damaged = bytearray(data)
    for place in random.integers(0, len(data), random.integers(1, 9)):
        damaged[place] ^= 1 << random.integers(8)
    return bytes(damaged)


def truncate(data: bytes, random: np.random.Generator) -> bytes:
    """The end is missing."""
    return data[: random.integers(0, len(data))]


def blank(data: bytes, random: np.random.Generator) -> bytes:
    """A page holds zeros."""
    start = int(random.integers(0, len(data)))
    stop = min(len(data), start + int(random.integers(1, 4096)))
    return data[:start] + bytes(stop - start) + data[stop:]


def move(data: bytes, random: np.random.Generator) -> bytes:
    """Two pages are exchanged."""
    size = int(random.integers(16, 512))
    a, b = sorted(int(place) for place in random.integers(0, max(1, len(data) - 2 * size), 2))
    b = max(b, a + size)
    return (
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
    )


def swap_arrays(data: bytes, random: np.random.Generator) -> bytes:
    """Two arrays of a weights file change places."""
    return _in_h5(data, lambda file: _swap(file, random))


def change_a_mask(data: bytes, random: np.random.Generator) -> bytes:
    """Some entries of an array of booleans, or of integers, are others."""
    return _in_h5(data, lambda file: _change(file, random))


def declare_huge(data: bytes, random: np.random.Generator) -> bytes:
    """An array of ours says that it has a billion entries, none of which is there.

    Of its own arrays Keras takes such a word, and as much memory.
    """

    def enlarge(file: h5py.File) -> None:
        ours = [name for name in _names(file) if _OURS.search(name) and file[name].shape]
        if not ours:
            return
        name = str(random.choice(ours))
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, (2**30,), dtype, chunks=(2**16,))

    return _in_h5(data, enlarge)


def climb(data: bytes, random: np.random.Generator) -> bytes:
    """An archive has a member that would land outside of where it is unpacked."""

    def add(members: dict[str, bytes]) -> dict[str, bytes]:
        return {**members, "../../climbed.txt": b"outside", "/climbed.txt": b"outside"}

    return _in_archive(data, add)


def change_numbers(data: bytes, random: np.random.Generator) -> bytes:
    """The configuration asks for other sizes than the weights have, huge ones among them."""

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        text = members["config.json"].decode()
        config = json.loads(text)
        layers = config["config"]["layers"]
        layer = layers[int(random.integers(len(layers)))]["config"]
        for name in ("units", "filters", "initial_density", "capacity", "batch_shape"):
            if name in layer:
                layer[name] = random.choice(np.array([-1, 0, 3, 10**12], object))
        return {**members, "config.json": json.dumps(config).encode()}

    return _in_archive(data, change)


def name_a_function(data: bytes, random: np.random.Generator) -> bytes:
    """The configuration asks for code to be run."""

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        text = members["config.json"].decode()
        evil = {
            "class_name": "__lambda__",
            "config": {"value": "gAAA", "defaults": None, "closure": None},
        }
        for name in ('"relu"', '"tanh"', '"softmax"'):
            text = text.replace(name, json.dumps(evil), 1)
        return {**members, "config.json": text.encode()}

    return _in_archive(data, change)


OF_ANY_FILE = (flip_bits, truncate, blank, move)
OF_WEIGHTS = (*OF_ANY_FILE, swap_arrays, change_a_mask, declare_huge)
OF_ARCHIVES = (*OF_ANY_FILE, climb, change_numbers, name_a_function)


def _in_h5(data: bytes, change: Callable[[h5py.File], None]) -> bytes:
    file = io.BytesIO(data)
    with h5py.File(file, "r+") as opened:
        change(opened)
    return file.getvalue()


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def _swap(file: h5py.File, random: np.random.Generator) -> None:
    names = _names(file)
    one = str(random.choice(names))
    same = [
        name
        for name in names
        if name != one
        and file[name].shape == file[one].shape
        and file[name].dtype == file[one].dtype
    ]
    other = str(random.choice(same)) if same else one
    first, second = file[one][()], file[other][()]
    file[one][...], file[other][...] = second, first


def _change(file: h5py.File, random: np.random.Generator) -> None:
    names = [name for name in _names(file) if file[name].dtype.kind in "bi" and file[name].shape]
    name = str(random.choice(names or _names(file)))
    array = np.array(file[name][()])
    flat = array.reshape(-1)
    place = int(random.integers(max(1, flat.size)))
    if flat.size:
        flat[place] = not flat[place] if array.dtype.kind == "b" else flat[place] + 1
    file[name][...] = array


def _in_archive(data: bytes, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    return made.getvalue()


def climbed(folder: pathlib.Path) -> bool:
    """Whether a member of an archive landed outside."""
    around = [folder, *folder.parents[:3], pathlib.Path("/")]
    return any((place / "climbed.txt").exists() for place in around)
