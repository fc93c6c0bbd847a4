"""Package metadata; build system, linter and tests are configured in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

root = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (root / "keras_grow/version.py").read_text())[1]

repository = "https://github.com/keras-grow/keras_grow"

docs = ["mkdocs-material", "nbconvert", "pdoc"]
litert = ["ai-edge-litert"]
onnx = ["onnxruntime", "tf2onnx>=1.17"]  # Earlier ones don't run with NumPy 2.
plotting = ["matplotlib"]
tensorboard = ["tensorboard"]  # TensorFlow no longer brings it along.
extras = {
    "litert": litert,
    "onnx": onnx,
    "campaign": ["cosmic-ray", "pytest-cov"],
    "docs": docs,
    "plotting": plotting,
    "tensorboard": tensorboard,
    "tutorials": [*plotting, "ipykernel", "scikit-learn", "tensorflow-datasets"],
    "test": [
        *docs,
        *litert,
        *onnx,
        *plotting,
        *tensorboard,
        "hypothesis",
        "ipykernel",
        "keras-tuner",
        "mypy",
        "nbclient",
        "nbformat",
        "optuna",
        "pytest",
        "pytest-xdist",
        "ruff",
        "scikit-learn",
    ],
}

setup(
    name="keras_grow",
    version=version,
    description="Keras networks that grow to the size they need: growth, pruning and export",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    url=repository,
    project_urls={
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        "Tutorials": f"{repository}/tree/main/tutorials",
    },
    keywords=[
        "keras",
        "tensorflow",
        "growing neural networks",
        "pruning",
        "sparse training",
        "dynamic sparse training",
        "structured pruning",
        "model compression",
        "weight normalization",
    ],
    packages=find_packages(include=["keras_grow", "keras_grow.*"]),
    package_data={"keras_grow": ["py.typed"]},
    python_requires=">=3.11,<3.14",
    install_requires=["tensorflow>=2.19,<3", "keras>=3.10,<4", "numpy>=1.26"],
    extras_require=extras,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
