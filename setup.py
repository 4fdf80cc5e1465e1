"""Package of synflow_tf: SynFlow pruning for Keras."""

import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (_HERE / "synflow_tf" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
).group(1)
_EXAMPLES = ["matplotlib", "scikit-learn"]

setuptools.setup(
    name="synflow_tf",
    version=_VERSION,
    description="Prunes Keras models before training, without data: SynFlow",
    long_description=(_HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["synflow_tf", "synflow_tf.*"]),
    python_requires=">=3.10",
    install_requires=[
        "absl-py",
        "keras>=3",
        "numpy",
        "tensorflow>=2.16",
        "tensorflow-datasets",
        "tensorflow-model-optimization>=0.8.1",
        "tf-keras>=2.16",
        # What tensorflow-datasets 4.9.10 imports and does not require.
        "importlib_resources",
        # What tensorflow-model-optimization needs for `distutils`.
        "setuptools; python_version >= '3.12'",
    ],
    extras_require={
        "examples": _EXAMPLES,
        "gpu": ["tensorflow[and-cuda]>=2.16"],
        "litert": ["ai-edge-litert"],
        "tensorboard": ["tensorboard"],
        "test": [
            "ai-edge-litert",
            "hypothesis",
            "pytest",
            "pytest-xdist",
            "ruff",
            "tensorboard",
            *_EXAMPLES,
        ],
    },
)
