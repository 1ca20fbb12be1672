"""The built-in data set, on a package with planted calls."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from xmc_core.config import Config
from xmc_core.data.python_api import PythonApi, find_files, installed_packages, read_python_api
from xmc_core.errors import DataError
from xmc_core.reporting import SILENT
from xmc_core.stages import dataset as dataset_stage

FILES = {
    "__init__.py": "raise RuntimeError('imported')\nfrom .core import solve, _help as help_me\n"
    "from .star import *",
    "core.py": '''
        """Nothing here may run."""
        import os.path
        raise RuntimeError("imported")
        def solve(x):
            """Solve it."""
            return os.path.join(x)
        def _help(x):
            """Help."""
            os.path.join(x), os.sep()
    ''',
    "use.py": '''
        import planted
        from planted import help_me
        from planted.core import solve
        def first():
            """First user."""
            planted.solve(1), help_me()
        def second():
            """Second user."""
            solve(2), planted.starred()
    ''',
    "more/__init__.py": "",
    "more/deep.py": '''
        from ..core import solve as s
        from ..star import starred
        from .. import star
        def third():
            """Third user."""
            s(3), star.starred()
        def first():
            """First user."""
            starred()
        def nothing():
            """Calls nothing."""
    ''',
    "star.py": '"""Stars."""\ndef starred(): ...',
    "tests/__init__.py": "",
    "tests/test_core.py": 'import os\ndef f():\n    """A test."""\n    os.path.join()',
    "test_more.py": 'import os\ndef f():\n    """A test."""\n    os.path.join()',
    "conftest.py": 'import os\ndef f():\n    """A test."""\n    os.path.join()',
    "not-a-module/x.py": 'import os\ndef f():\n    """Never."""\n    os.path.join()',
    "old.py": '"""x"""\nprint "python 2"',
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that complains if it is imported, on sys.path."""
    root = tmp_path / "site" / "planted"
    for name, source in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(source))
    (root.parent / "single.py").write_text('import os\ndef f():\n    """Alone."""\n    os.getcwd()')
    monkeypatch.syspath_prepend(root.parent)
    return root


def rows(read: PythonApi) -> dict[str, set[str]]:
    d = read.documents
    return {
        text: {d.names[label] for label in d.labels[d.pointer[row] : d.pointer[row + 1]]}
        for row, text in enumerate(d.texts)
    }


def fingerprint(read: PythonApi) -> str:
    d = read.documents
    return hashlib.sha256(
        repr((d.texts, d.names, d.labels.tolist(), d.pointer.tolist(), read.files)).encode()
    ).hexdigest()


def test_planted_calls_are_found_under_one_name_each(planted: Path):
    assert rows(read_python_api(["planted"])) == {
        "solve: Solve it.": {"os.path.join"},
        "help: Help.": {"os.path.join", "os.sep"},
        "first: First user.": {"planted.star.starred"},
        "second: Second user.": {"planted.core.solve", "planted.star.starred"},
        "third: Third user.": {"planted.core.solve", "planted.star.starred"},
    }


def test_documents_that_call_nothing_are_left_out_and_rare_labels_leave_out_none(planted: Path):
    read = read_python_api(["planted"])
    assert "nothing: Calls nothing." not in rows(read)
    assert read.facts["without_label"] == 1
    assert Counter(read.documents.labels.tolist()).most_common()[-1][1] == 1


def test_a_text_is_kept_once_from_the_first_file(planted: Path):
    read = read_python_api(["planted"])
    home = dict(zip(read.documents.texts, read.files, strict=True))
    assert home["first: First user."] == "planted/more/deep.py"
    assert home["third: Third user."] == "planted/more/deep.py"
    assert read.facts["same_text"] == 1


def test_tests_and_what_cannot_be_imported_or_parsed_are_left_out(planted: Path):
    modules = {file.module for file in find_files("planted")}
    assert modules == {
        "planted",
        "planted.core",
        "planted.use",
        "planted.more",
        "planted.more.deep",
        "planted.star",
        "planted.old",
    }
    assert read_python_api(["planted"]).facts["files_not_parsed"] == 1


def test_nothing_is_imported_or_run(planted: Path):
    read_python_api(["planted"])
    assert "planted" not in sys.modules


def test_a_single_module_is_a_package_too(planted: Path):
    assert rows(read_python_api(["single"])) == {"f: Alone.": {"os.getcwd"}}


def test_processes_and_this_process_find_the_same():
    alone = read_python_api(["networkx"], n_threads=1)
    assert fingerprint(read_python_api(["networkx"], n_threads=2)) == fingerprint(alone)
    assert len(alone.documents) > 500


def test_the_order_of_the_packages_does_not_matter(planted: Path):
    names = ["planted", "single"]
    one = read_python_api(names)
    assert fingerprint(read_python_api(names[::-1])) == fingerprint(one)
    assert list(one.facts["packages"]) == names


def test_versions_are_facts():
    facts = read_python_api(["networkx"]).facts
    assert facts["packages"]["networkx"].startswith("networkx ")
    assert facts["python"].count(".") == 2


def test_a_package_that_is_not_installed_is_named_with_the_command_that_brings_it():
    with pytest.raises(
        DataError, match=r"package 'no_such_thing' is not installed; pip install no_such_thing"
    ):
        read_python_api(["numpy", "no_such_thing"])


@pytest.mark.parametrize("name", ["numpy.linalg", "not-a-name", ""])
def test_only_top_level_names_are_packages(name: str):
    with pytest.raises(DataError, match="is not installed"):
        read_python_api([name])


def test_a_package_without_source_has_nothing_to_read():
    with pytest.raises(DataError, match="'_struct' has no Python source"):
        read_python_api(["_struct"])


def test_packages_that_call_nothing_are_an_error(tmp_path: Path, monkeypatch):
    (tmp_path / "mute.py").write_text('def silent():\n    """Calls nothing."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"mute: no documented function calls anything; name more"):
        read_python_api(["mute"])


def test_of_two_files_of_one_module_the_package_counts_as_in_an_import(tmp_path, monkeypatch):
    inner = tmp_path / "twice" / "m"
    inner.mkdir(parents=True)
    (tmp_path / "twice" / "__init__.py").write_text("")
    function = 'import {0}\ndef {1}(x):\n    """Do {1}."""\n    return {0}.{2}(x)\n'
    (inner / "__init__.py").write_text(function.format("json", "first", "dumps"))
    inner.with_suffix(".py").write_text(function.format("math", "second", "sqrt"))
    monkeypatch.syspath_prepend(tmp_path)
    assert set().union(*rows(read_python_api(["twice"])).values()) == {"json.dumps", "math.sqrt"}


def test_all_packages_are_those_installed_but_this_one():
    names = installed_packages()
    assert {"numpy", "scipy", "yaml", "rich"} <= set(names)
    assert not {"xmc_core", "orchestration"} & set(names)


def write_stage(folder: Path, n_threads: int) -> None:
    config = Config().replace(
        **{
            "dataset.source": "python-api",
            "dataset.packages": ["networkx"],
            "dataset.min_label_count": 2,
            "n_threads": n_threads,
        }
    )
    dataset_stage.run(None, config, folder, SILENT)  # type: ignore[arg-type]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_stage_writes_the_same_bytes_in_every_process(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from tests.data.test_python_api import write_stage;"
        "write_stage(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    for seed, n_threads in (("1", "1"), ("2", "2")):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed), n_threads],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    assert folder_bytes(tmp_path / "1") == folder_bytes(tmp_path / "2")
    assert "manifest.json" in folder_bytes(tmp_path / "1")


def test_documents_of_one_file_are_not_split(tmp_path: Path):
    from xmc_core.data import Dataset

    write_stage(tmp_path / "d", -1)
    dataset = Dataset.load(tmp_path / "d")
    read = read_python_api(["networkx"])
    home = dict(zip(read.documents.texts, read.files, strict=True))
    sides = [{home[text] for text in texts} for texts in (dataset.train_texts, dataset.test_texts)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) > 10
