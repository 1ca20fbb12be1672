"""What one file documents and calls."""

from textwrap import dedent

import pytest

from tests.reference import data as reference
from xmc_core.data import python_api, python_source
from xmc_core.data.python_source import read_source


def documents(source: str, module: str = "pack.sub.mod", *, is_package: bool = False):
    content = read_source(dedent(source).encode(), module, is_package=is_package)
    assert content is not None
    return {text.split(":")[0]: names for text, names in content["documents"]}


def calls(body: str, module: str = "pack.sub.mod", *, is_package: bool = False) -> list[str]:
    """Names called by a function `f` with this body, after some imports."""
    imports = "import numpy as np\nimport os.path\nfrom pack import tool\nfrom . import near\n"
    source = f'{imports}def f(a, tool2=None):\n    """Doc."""\n{_indented(body)}'
    return documents(source, module, is_package=is_package)["f"]


def _indented(body: str) -> str:
    return "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())


@pytest.mark.parametrize("name", ["networkx.algorithms.dag", "networkx.algorithms.cycles"])
def test_agrees_with_the_reference_on_a_real_file(name: str):
    files = {file.module: file for file in python_api.find_files("networkx")}
    source = files[name].path.read_text()
    found = {
        text.split(":")[0].replace(" ", "_"): names
        for text, names in read_source(source.encode(), name, is_package=False)["documents"]  # type: ignore[index]
    }
    expected = {
        function.strip("_"): names for function, names in reference.calls(source, name).items()
    }
    assert len(found) > 10
    assert found == {name: expected[name] for name in found}


def test_names_are_resolved_through_the_imports_of_the_file():
    assert calls("np.linalg.svd(a)\nos.path.join(a)\ntool(a)\ntool.deep.er(a)\nnear.by()") == [
        "numpy.linalg.svd",
        "os.path.join",
        "pack.sub.near.by",
        "pack.tool",
        "pack.tool.deep.er",
    ]


def test_relative_imports_start_at_the_package():
    assert calls("from .x import y\ny()") == ["pack.sub.x.y"]
    assert calls("from ..x import y as z\nz()") == ["pack.x.y"]
    assert calls("from .. import x\nx.y()") == ["pack.x.y"]
    assert calls("from ....x import y\ny()") == []
    assert calls("from .x import y\ny()", "pack.sub", is_package=True) == ["pack.sub.x.y"]


def test_imports_inside_the_function_and_under_conditions_count():
    assert calls("import json as j\nfrom re import match\nj.loads(match(a))") == [
        "json.loads",
        "re.match",
    ]
    source = '''
        try:
            import fast as quick
        except ImportError:
            quick = None
        if True:
            from slow import crawl
        def f():
            """Doc."""
            quick.go(), crawl()
    '''
    assert documents(source)["f"] == ["fast.go", "slow.crawl"]


def test_built_ins_own_functions_and_methods_of_values_are_left_out():
    source = '''
        import builtins, numpy
        def own(): ...
        def f(self, a):
            """Doc."""
            len(a), own(a), self.fit(a), a.b.c(), a[0](), [].sort(), builtins.print(a)
            numpy.ones(3).sum()
    '''
    assert documents(source)["f"] == ["numpy.ones"]


@pytest.mark.parametrize(
    "body",
    [
        "np = a\nnp.ones()",
        "for np in a: np.ones()",
        "with a as np: np.ones()",
        "[np.ones() for np in a]",
        "def np(): ...\nnp()",
        "class np: ...\nnp()",
        "(np := a).ones()\nnp.ones()",
        "(lambda np: np.ones())(a)",
    ],
)
def test_a_name_that_the_function_binds_itself_is_not_the_import(body: str):
    assert calls(body) == []


def test_parameters_hide_imports_in_the_function_and_in_those_inside_it():
    source = '''
        import time, copy
        def f(time, *copy):
            """Doc."""
            time.sleep(), copy.copy()
            def inner():
                """Doc too."""
                time.sleep()
        def g(*, time=None, **copy):
            """Doc."""
            time.sleep(), copy.copy()
    '''
    assert documents(source) == {"f": [], "inner": [], "g": []}


def test_a_function_defined_at_the_top_hides_an_import_of_its_name():
    assert documents('from x import y\ndef y(): ...\ndef f():\n    """D."""\n    y()') == {"f": []}


def test_decorators_and_defaults_are_not_called_by_the_function():
    source = '''
        import deco, dflt
        @deco.rate(1)
        def f(a=dflt.make()):
            """Doc."""
    '''
    assert documents(source) == {"f": []}


def test_methods_async_and_inner_functions_are_documents_too():
    source = '''
        import m
        class A:
            def fit(self):
                """Fit."""
                def step():
                    """Step."""
                    m.two()
                m.one()
            class B:
                async def go(self):
                    """Go."""
                    await m.three()
        def bare():
            def hidden():
                """Hidden."""
                m.four()
    '''
    assert documents(source) == {
        "fit": ["m.one", "m.two"],
        "step": ["m.two"],
        "go": ["m.three"],
        "hidden": ["m.four"],
    }


def test_the_text_is_the_name_in_words_and_the_docstring_without_examples():
    source = '''
        def fit_HTTPServer(x):
            """Fit a
               server.

            >>> fit(1)
            3
            ... more

            See also: sum.
              >>> fit(2)
              4
            """
        def undocumented(x): ...
        def only_example():
            """>>> 1 + 1"""
    '''
    content = read_source(dedent(source).encode(), "m", is_package=False)
    assert content is not None
    assert content["documents"] == [("fit HTTP Server: Fit a server. See also: sum.", [])]


def test_what_a_module_hands_on_is_listed():
    source = """
        from .core import a as b, c
        from .more import *
        import x.y
        def c(): ...
        class D:
            from hidden import e
    """
    content = read_source(dedent(source).encode(), "pack", is_package=True)
    assert content == {
        "documents": [],
        "imports": {"b": "pack.core.a", "x": "x", "e": "hidden.e"},
        "stars": ["pack.more"],
        "defined": ["D", "c"],
    }


@pytest.mark.parametrize(
    "source",
    [b'"""x"""\nprint "old"', b'"""x"""\0', b'# -*- coding: nonsense -*-\n"""x"""', b'"""\xff"""'],
)
def test_what_cannot_be_parsed_is_none(source: bytes):
    assert read_source(source, "m", is_package=False) is None


def test_a_file_that_cannot_be_read_is_none_and_a_bad_escape_is_silent(
    tmp_path, recwarn: pytest.WarningsRecorder
):
    assert python_source.read_file(str(tmp_path / "no.py"), "no", False) is None
    (tmp_path / "m.py").write_text('def f():\n    """Doc \\d."""\n')
    assert python_source.read_file(str(tmp_path / "m.py"), "m", False) is not None
    assert not recwarn.list
