"""Metadata of the package. `make setup` installs it, with detectron2, which is not on PyPI."""

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"


def link_configs() -> list[str]:
    """Link configs/ into the package, as detectron2 does: a wheel gets copies of the files.

    Returns:
        The files, as paths in the package.
    """
    link, configs = ROOT / "alphaaction_d2" / "model_zoo" / "configs", ROOT / "configs"
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    try:
        link.symlink_to(Path("..", "..", "configs"), target_is_directory=True)
    except OSError:  # a file system without links
        shutil.copytree(configs, link)
    files = sorted(x for x in configs.rglob("*") if x.is_file() and x.suffix != ".pyc")
    return [f"configs/{path.relative_to(configs).as_posix()}" for path in files]


setup(
    name="alphaaction_d2",
    version=runpy.run_path(str(ROOT / "alphaaction_d2" / "version.py"))["__version__"],
    description="Spatio-temporal action detection with interactions and memory, for detectron2",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    author="The alphaaction_d2 authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    py_modules=["alphaaction"],
    entry_points={"console_scripts": ["alphaaction = alphaaction:main"]},
    packages=find_packages(include=["alphaaction_d2", "alphaaction_d2.*"]),
    package_data={
        "alphaaction_d2": ["py.typed"],
        "alphaaction_d2.model_zoo": link_configs(),
        "alphaaction_d2.visualization": ["templates/*.jinja"],
    },
    python_requires=">=3.10",
    # detectron2 is not listed because it is not on PyPI: `alphaaction setup` brings it.
    install_requires=[
        "torch>=2.6",  # torch.load defaults to weights_only=True
        "torchvision>=0.21",  # the release that belongs to torch 2.6
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "pycocotools>=2.0.8",  # the first one for numpy 2
        "pytorchvideo>=0.1.5",
        "av>=14.0",  # 18 and later want Python 3.11; pip picks an older one on 3.10
        "numpy>=1.26",
        "scipy>=1.11",
        "pyarrow>=15.0",
        "opencv-python-headless>=4.9",
        "matplotlib>=3.8",
        "Pillow>=10.1",
        "Jinja2>=3.1",
        "tqdm>=4.60",
        "pyyaml>=6.0",
        "tabulate>=0.9",
        "tensorboard>=2.15",
    ],
    extras_require={
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        # detectors by name, RF-DETR before all; other networks; .safetensors, which come with it
        "backbones": ["safetensors>=0.4.3", "transformers>=5.20"],
        "cluster": ["ray[data]>=2.40"],  # `alphaaction predict --ray`
        "web": ["gradio>=6.31,<7"],
        "export": ["onnx>=1.19", "onnxscript>=0.6", "onnxruntime>=1.23"],
        "openvino": ["openvino>=2025.3"],
        "dev": [
            "hypothesis>=6.100",
            "mypy>=1.15",
            "onnx>=1.19",
            "onnxruntime>=1.23",
            "onnxscript>=0.6",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.17.5,<0.18",  # formatting differs between minor versions
            "transformers>=5.20",
        ],
    },
)
