"""Makes the API reference from docstrings, in docs/api or the folder that is named: `make docs`."""

import pathlib
import sys
import types

import pdoc

import keras_grow

HERE = pathlib.Path(__file__).parent


def main(folder: pathlib.Path) -> None:
    """Writes a page for the package, and one for each module among its public names."""
    public = [getattr(keras_grow, name) for name in keras_grow.__all__]
    modules = [value.__name__ for value in public if isinstance(value, types.ModuleType)]
    pdoc.render.configure(docformat="google", math=True, show_source=False)
    pdoc.pdoc("keras_grow", *modules, output_directory=folder)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "api")
