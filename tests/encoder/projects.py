"""A data set on disk that is ready for the stage xr_transformer."""

from xmc_core.config import Config
from xmc_core.data import Dataset
from xmc_core.stages.paths import ProjectPaths
from xmc_core.stages.runner import run_stage


def make_project(data, planted, tree, config: Config) -> ProjectPaths:
    """Every stage before it, on 90 training and 30 test rows of the planted texts."""
    paths = ProjectPaths(data, "toy")
    texts, Y = planted
    names = [f"label {i}" for i in range(12)]
    Dataset(texts[:90], texts[90:], names, Y[:90], Y[90:]).save(paths.out("dataset"))
    run_stage("tfidf_features", paths, config, quiet=True)
    folder = paths.out("disentangled_tree")
    tree.save(folder / "tree")
    (folder / "manifest.json").write_text("{}")
    return paths
