"""What the registry does not allow is found however it is spelled, and nothing of it is shipped but what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release import scanner
from tests.release.archive import NotInGit, shipped
from tests.release.scanner import ALLOWED, NEVER, Finding, refused, scan, scan_python, unused

#: Sources, by the rule that is to find them.
BAD = {
    "code from text": [
        "eval('1')", "exec('1')", "f = eval", "print(list(map(eval, ['1'])))", "x = [exec][0]",
        "def f(run=exec): ...", "compile('1', '', 'eval')", "__import__('os')",
        "import builtins\nbuiltins.exec('1')", "from builtins import eval as e\ne('1')", "__builtins__['eval']",
        "import code\ncode.InteractiveInterpreter()", "import runpy", "import types\ntypes.FunctionType(c, {})",
        "from types import CodeType", "model.eval()", "f.__code__ = g.__code__", "getattr(x, 'eval')",
        "@eval\ndef f(): ...", "lambda: eval", "import typing\ntyping.get_type_hints(x)",
        "from typing import ForwardRef", "f'{eval(x)}'", "class A(B, metaclass=exec): ...",
        "def f(x: eval('1')): ...", "def f() -> exec('1'): ...", "def f(compile): ...\ncompile('1', '', 'eval')",
        "import timeit", "eval = eval", "(e := eval)('1')",
    ],
    "other programs": [
        "import subprocess", "import subprocess as s\ns.run(['a'])", "from subprocess import run",
        "import os\nos.system('a')", "from os import system as s\ns('a')", "import os as o\no.popen('a')",
        "import os\nos.execv('a', [])", "import os\nos.spawnl(0, 'a')", "import os\nos.posix_spawn('a', [], {})",
        "import os\nos.fork()", "import shutil\nshutil.os.system('a')", "from shutil import os as o\no.system('a')",
        "import os.path as p\np.os.system('a')", "import tempfile\ntempfile._os.system('a')", "x.system('a')",
        "getattr(x, 'popen')", "import pty", "import webbrowser", "import multiprocessing",
        "from concurrent.futures import ProcessPoolExecutor", "import asyncio.subprocess", "import posix",
        "import torch.multiprocessing", "def f():\n    import subprocess", "import platform\nplatform.popen('a')",
        "from .files import os\nos.system('a')", "from . import files\nfiles.os.system('a')",
        "import os\ngetattr(os, 'system')", "if False:\n    from subprocess import Popen as P",
        "try:\n    import subprocess\nexcept ImportError: ...",
    ],
    "installs packages": [
        "import pip", "from pip._internal import main", "import ensurepip", "import pkg_resources",
        "import setuptools", "import site",
    ],
    "hidden code": [
        "import marshal", "import base64", "from base64 import b64decode as d", "import binascii", "import codecs",
        "import zlib\nzlib.decompress(x)", "from zlib import decompressobj", "import lzma", "x.decode('rot13')",
        "x.decode(encoding='hex')", "x.decode('unicode_escape')", "bytes.fromhex('00')", "''.join(map(chr, [101]))",
        f"x = '{'QUJD' * 30}'", f"x = b'{'QUJD' * 30}'", "x = '" + "QUJD" * 10 + "' '" + "QUJD" * 15 + "'",
        f"x = {10**200}", "x = b'" + "\\xfe" * 40 + "'",
    ],
    "unpickles": [
        "import pickle\npickle.loads(x)", "from pickle import load", "import pickle as p\np.Unpickler(f)",
        "import torch\ntorch.load(f)", "from torch import load", "import numpy as np\nnp.load(f)",
        "import yaml\nyaml.load(x)", "from yaml import unsafe_load", "import dill", "import joblib", "import shelve",
        "class A(p.Unpickler): ...",
    ],
    "native code": [
        "import ctypes", "from ctypes import CDLL", "import cffi", "x.CDLL('a')",
        "import torch\ntorch.ops.load_library('a')",
    ],
    "imports by name": [
        "import importlib\nimportlib.import_module('a')", "from importlib import import_module", "import imp",
        "import pkgutil", "import importlib.util\nimportlib.util.spec_from_file_location('a', 'b')",
        "import sys\nsys.path.insert(0, 'a')", "import sys\nsys.modules['os'].x",
        "import threading\nthreading._sys.modules",
        "from sys import modules",
        "__loader__.load_module('a')", "import zipfile\nzipfile.__loader__",
        "from importlib.machinery import SourceFileLoader",
    ],
    "network": [
        "import socket", "import requests", "from urllib.request import urlopen", "import urllib.request as r",
        "import http.client", "from urllib import request", "import urllib.parse\nurllib.request.build_opener()",
        "import torch\ntorch.hub.load('a', 'b')", "from torch import hub", "import huggingface_hub",
        "import aiohttp", "import asyncio", "x.urlopen('a')",
        "from .fetching import urllib\nurllib.request.build_opener()",
    ],
    "environment": [
        "import os\nos.environ['A']", "from os import environ as e", "import os\nos.getenv('A')",
        "import os\nos.putenv('A', 'b')", "import os\ngetattr(os, 'environ')", "from os import environb",
    ],
    "another's memory": [
        "import sys\nsys._getframe()", "import inspect\ninspect.stack()", "import gc\ngc.get_objects()",
    ],
    "attributes by name": [
        "import os\ngetattr(os, name)", "import os\ntool = os", "import os\nvars(os)",
        "import os\nos.__dict__['system']", "globals()['x']", "from os import *",
        "import sys\nsetattr(sys, name, x)", "().__class__.__base__.__subclasses__()", "f.__globals__",
        "x = '__globals__'", "from operator import attrgetter", "'{0.__globals__}'.format(f)",
        "from shutil import os", "import os\nf(os)", "import os\n[os][0].x", "import torch\ngetattr(torch, a + b)",
        "map(getattr, [x], ['system'])", "get = getattr", "print.__self__", "import os\ngetattr(*a)(os)",
    ],
    "unreadable": [
        "def f(:", "x = 1\0", f"x = {'1 + ' * 200}1", "\u0435val = 1", "x.\u0435xec", "import a as \u043es",
        "def f(\u0435): ...",
    ],
}  # fmt: skip
GOOD = [
    "import os\nos.path.join('a', 'b')", "from os import path", "import os.path",
    "import platform\nplatform.system()", "import re\nre.compile('a')", "import torch\ntorch.compile(f)",
    "def f(compile=False): return compile", "class A:\n    def run(self, compile): self.compile = compile",
    "import pickle\npickle.NONE", "import zlib\nzlib.crc32(x)", "import zlib\ntry: ...\nexcept zlib.error: ...",
    "x.decode('utf-8')", "import importlib.util\nimportlib.util.find_spec('a')",
    "import urllib.parse\nurllib.parse.quote('a')", "from .code import site", "error.socket",
    "'call eval() or exec()'", "# eval('1')", "getattr(x, name, None)", "import sys\nsys.exit(1)",
    "import torch\nhasattr(torch, 'xpu')", f"x = '{'ab' * 32}'", "import json\njson.loads(x)",
    "import torch\nx: torch.Tensor = torch.ones(1)", "model.train(False)", "f'{x:>10}'", "x = '…' * 40",
]  # fmt: skip


@pytest.mark.parametrize("rule", BAD)
def test_is_found_however_it_is_spelled(rule: str) -> None:
    for source in BAD[rule]:
        assert rule in {found.rule for found in scan_python("a.py", source)}, source


def test_what_is_like_it_is_not_found() -> None:
    assert not [(source, str(found)) for source in GOOD for found in scan_python("a.py", source)]


def test_what_is_shipped_has_only_what_is_allowed() -> None:
    try:
        names = shipped(new=True)
    except NotInGit:
        pytest.skip("not a git checkout")
    found = scan(names)
    assert not [str(one) for one in refused(found)], "see tests/release/scanner.py"
    assert not unused(found), "allowed, and no longer there"


def test_what_is_allowed_is_so_in_one_file_and_with_a_reason() -> None:
    found = [Finding("a.py", 1, "native code", "ctypes"), Finding("b.py", 1, "native code", "ctypes")]
    assert refused(found, {("a.py", "ctypes"): "because"}) == found[1:]
    assert unused(found, {("c.py", "ctypes"): "because"}) == [("c.py", "ctypes")]
    assert all(len(reason) > 10 for reason in ALLOWED.values())


@pytest.mark.parametrize("rule", NEVER)
def test_some_things_are_never_allowed(rule: str) -> None:
    found = [Finding("a.py", 1, rule, "it")]
    assert refused(found, {("a.py", "it"): "because"}) == found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.so", b"\x7fELF"), ("a.pyc", b""), ("a.exe", b"MZ"), ("a.sh", b"rm -rf /"), ("a.pth", b""),
        ("a.ipynb", b"{}"), ("a.PY", b"eval('1')"), ("a.py", b"\xff\xfe"), ("a.zip", b"PK"), ("a.js", b"eval('1')"),
        ("a.js", b"new Function('a')"), ("a.js", b"atob(x)"), ("a.js", b"1" * 1000),
        ("a.py", "a = 1".encode("utf-16")), ("a.py", b"# coding: utf-7"),
        ("a.py", b"#!/x\n# vim: fileencoding=latin-1"),
        ("a.py", b"# coding: none"), ("a.py", b"x = " + b"(" * 300), ("a.py", b"x = " + b"-\\\n" * 100_000 + b"1"),
    ],
)  # fmt: skip
def test_files_that_nobody_can_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert refused(scan([name], tmp_path))


def test_a_link_and_plain_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").symlink_to(Path(scanner.__file__))
    for name in ("b.md", "c.json", "d.yaml", "LICENSE", "e.safetensors", "f.js"):
        (tmp_path / name).write_bytes(b"plain")
    assert [found.path for found in scan([path.name for path in sorted(tmp_path.iterdir())], tmp_path)] == ["a.py"]
