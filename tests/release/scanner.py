"""What the registry does not allow in a pack, or looks at twice, found in the syntax of what is shipped.

A finding is something that code is able to do (run other programs, use the network, …), whether or not it does it, and
has to be in :data:`ALLOWED`, by its module and what it is, with the reason. What of the registry's rules has no
exception is in :data:`NEVER`.

Names are followed through imports and their aliases (``from os import system as s``), through other modules
(``shutil.os.system``), and by attributes of what is not known (``sys.modules["os"].system``). A module that could be
asked for such a thing by name must not be passed around (``getattr(os, name)``, ``tool = os``).
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .archive import ROOT

#: What is found, by rule: full names of modules or of what is in them. A name stands for all that begins with it, at a
#: dot, or anywhere where it ends with a star.
RULES: dict[str, tuple[str, ...]] = {
    "code from text": (
        "builtins", "code", "codeop", "runpy", "types.CodeType", "types.FunctionType", "timeit", "cProfile", "profile",
        "pdb", "bdb", "trace", "doctest", "torch.jit.CompilationUnit", "torch.utils.cpp_extension", "torch.package",
        "numexpr", "sympy", "pandas.eval", "typing.get_type_hints", "typing.ForwardRef", "inspect.get_annotations",
        "annotationlib",
    ),
    "other programs": (
        "subprocess", "_posixsubprocess", "os.system", "os.popen*", "os.exec*", "os.spawn*", "os.posix_spawn*",
        "os.fork*", "os.startfile", "posix", "nt", "pty", "multiprocessing", "concurrent.futures.ProcessPoolExecutor",
        "concurrent.futures.process",
        "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "asyncio.subprocess", "webbrowser", "sh",
        "pexpect", "plumbum", "invoke", "fabric", "psutil.Popen", "popen2", "antigravity", "winreg", "_winapi",
        "win32api", "win32com", "os.kill*", "torch.multiprocessing", "torch.distributed",
    ),
    "installs packages": (
        "pip", "ensurepip", "setuptools", "pkg_resources", "distutils", "venv", "virtualenv", "site", "uv", "conda",
        "easy_install",
    ),
    "hidden code": (
        "marshal", "base64", "binascii", "codecs", "quopri", "uu", "zlib.decompress*", "gzip", "bz2", "lzma",
        "zipimport", "bytes.fromhex", "bytearray.fromhex", "dis", "opcode", "py_compile", "compileall",
        "cryptography", "Crypto", "nacl",
    ),
    "unpickles": (
        "pickle.load*", "pickle.Unpickler", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve",
        "jsonpickle", "torch.load", "torch.serialization", "torch.jit.load", "numpy.load", "numpy.lib",
        "pandas.read_pickle", "yaml.load*", "yaml.unsafe_load*", "yaml.full_load*", "yaml.Loader", "yaml.UnsafeLoader",
        "yaml.FullLoader", "copyreg",
    ),
    "native code": (
        "ctypes", "_ctypes", "cffi", "pybind11", "torch.ops.load_library", "torch.classes", "numba", "cppyy",
    ),
    "imports by name": (
        "importlib.import_module", "importlib.__import__", "importlib.reload", "importlib.machinery", "importlib.abc",
        "importlib._bootstrap", "importlib.util.spec_from_file_location", "importlib.util.spec_from_loader",
        "importlib.util.module_from_spec", "importlib.resources", "imp", "pkgutil", "pydoc", "logging.config",
        "sys.modules", "sys.path", "sys.path_hooks", "sys.meta_path", "sys.path_importer_cache",
    ),
    "network": (
        "urllib.request", "urllib.error", "urllib2", "http", "socket", "_socket", "socketserver", "ssl", "ftplib",
        "smtplib", "poplib", "imaplib", "nntplib", "telnetlib", "xmlrpc", "requests", "httpx", "aiohttp", "urllib3",
        "websocket", "websockets", "paramiko", "wget", "pycurl", "gdown", "boto3", "huggingface_hub", "transformers",
        "diffusers", "torch.hub", "torchvision", "asyncio", "gradio", "flask", "fastapi", "server", "PIL.ImageShow",
    ),
    "environment": ("os.environ*", "os.getenv*", "os.putenv", "os.unsetenv", "dotenv"),
    "another's memory": (
        "sys._getframe", "sys._current_frames", "sys.settrace", "sys.setprofile", "sys.addaudithook",
        "inspect.currentframe", "inspect.stack", "inspect.getframeinfo", "gc.get_objects", "gc.get_referrers",
        "gc.get_referents", "threading.settrace",
    ),
    "attributes by name": (
        "operator.attrgetter", "operator.methodcaller", "inspect.getattr_static", "inspect.getmembers",
    ),
}  # fmt: skip
#: The registry makes no exception from these.
NEVER = ("code from text", "other programs", "installs packages", "unpickles", "unreadable")
#: Names that Python always has.
_BUILT_IN = {
    "eval": "code from text", "exec": "code from text", "compile": "code from text", "__import__": "code from text",
    "__builtins__": "code from text", "__loader__": "imports by name", "__spec__": "imports by name",
    "globals": "attributes by name", "locals": "attributes by name", "chr": "hidden code",
}  # fmt: skip
#: What takes an attribute by its name; called, it is looked at with what it is called with.
_GETTERS = ("getattr", "setattr", "delattr", "hasattr")
#: Attributes that are such a thing whatever they are taken of.
_ATTRIBUTES = {
    **dict.fromkeys(("eval", "exec", "__builtins__", "__code__", "co_code", "CodeType", "FunctionType"),
                    "code from text"),
    **dict.fromkeys(("__globals__", "f_globals", "f_locals", "f_builtins", "__subclasses__", "__bases__", "__mro__",
                     "__getattribute__", "__self__", "f_back", "gi_frame", "cr_frame", "tb_frame"),
                    "attributes by name"),
    **dict.fromkeys(("system", "popen", "Popen", "check_output", "check_call", "startfile", "getoutput", "posix_spawn",
                     *(f"exec{end}" for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
                     *(f"spawn{end}" for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe"))), "other programs"),
    **dict.fromkeys(("fromhex", "a2b_base64", "b64decode", "decodebytes", "unhexlify"), "hidden code"),
    **dict.fromkeys(("Unpickler", "unsafe_load", "full_load"), "unpickles"),
    **dict.fromkeys(("CDLL", "PyDLL", "WinDLL", "LoadLibrary", "load_library"), "native code"),
    **dict.fromkeys(("import_module", "__import__", "exec_module", "load_module", "find_loader", "__loader__"),
                    "imports by name"),
    **dict.fromkeys(("urlopen", "urlretrieve", "create_connection"), "network"),
    "environ": "environment", "getenv": "environment",
}  # fmt: skip
#: Modules by whose names other rules can be got round, if they are passed around.
_POWERFUL = {
    "os", "sys", "importlib", "importlib.util", "types", "pickle", "zlib", "codecs", "operator", "inspect", "gc",
    "asyncio", "urllib", "torch", "numpy", "yaml", "shutil", "platform", "io", "pathlib", "threading", "logging",
    "tempfile",
} | {name for names in RULES.values() for name in names if "." not in name}  # fmt: skip
#: Encodings that make text of something else; see :class:`str.decode`.
_ENCODINGS = re.compile(r"rot.?13|base.?64|hex|zip|zlib|bz2|uu|quopri|unicode.?escape|raw.?unicode|punycode|idna", re.I)
_HIDDEN_NAMES = re.compile("__(import|builtins|globals|subclasses|code)__")
#: As base64 has it, and a hash has not.
_PACKED = re.compile(r"[A-Za-z0-9+/=_-]{80,}|(?:\\x[0-9a-fA-F]{2}){16,}")
#: In scripts of a browser.
_SCRIPT = re.compile(
    r"\beval\s*\(|\bFunction\s*\(|\batob\s*\(|document\.write|\bimport\s*\(\s*[\"'`]https?:|fromCharCode"
)
_LONGEST_LINE = 400
#: What a pack may consist of. The first are read by people, the others by nothing that runs them.
_TEXTS, _DATA = {".py", ".md", ".json", ".yaml", ".toml", ".txt", ".js", ".css", ""}, {".safetensors", ".jpg", ".mp4"}

#: What is shipped and may be, by its file and what it is, with the reason.
ALLOWED: dict[tuple[str, str], str] = {
    ("tlbvfi/video/parcel_frames.py", "zlib.decompress"): "pixels of frames that were sent, of a size that is known",
    ("__init__.py", "sys.modules"): "looks whether ComfyUI is there, and changes nothing",
    (
        "nodes/host.py",
        "torch as a value",
    ): "counts the devices of ComfyUI's kind (torch.cuda, torch.xpu)",
    ("nodes/host.py", "sys.modules"): "finds ComfyUI's server, to show a text on the node that runs",
    ("tlbvfi/bench/clock.py", "torch as a value"): "waits for a device by its kind (torch.mps, torch.xpu)",
    (
        "tlbvfi/cluster/connection.py",
        "os.environ",
    ): "RAY_ADDRESS, as Ray reads it; a Ray of ours tells nobody of its use",
    ("tlbvfi/cluster/connection.py", "socket"): "asks whether the Ray that --cluster names answers",
    ("tlbvfi/commands/main.py", "sys as a value"): "replaces closed standard streams of the command line",
    ("tlbvfi/commands/models.py", "torch as a value"): "a dtype by its name, one of those in the grammar",
    ("tlbvfi/commands/process.py", "ctypes"): "asks the C library to give freed memory back; the command line alone",
    ("tlbvfi/device_memory.py", "ctypes"): "asks the graphics driver how much memory the card has",
    ("tlbvfi/device_memory.py", "torch as a value"): "empties the cache of a device by its kind (torch.mps, torch.xpu)",
    ("tlbvfi/fetching.py", "http"): "fetches a weight file when asked to",
    ("tlbvfi/fetching.py", "ssl"): "tells a certificate that is not trusted from other errors",
    ("tlbvfi/fetching.py", "urllib.error"): "fetches a weight file when asked to",
    ("tlbvfi/fetching.py", "urllib.request"): "fetches a weight file when asked to",
    ("tlbvfi/published.py", "os.environ"): "HF_ENDPOINT, HF_HUB_OFFLINE: as Hugging Face's tools read them",
    ("tlbvfi/late_imports.py", "importlib.import_module"): "modules of this package, when they are first asked for",
}


@dataclass(frozen=True, order=True)
class Finding:
    """Something that a file is able to do.

    Attributes:
        what: the name in :data:`RULES`, or the spelling.
    """

    path: str
    line: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} ({self.rule})"


def scan(names: Iterable[str], root: Path = ROOT) -> list[Finding]:
    """What files of a pack are able to do, allowed or not."""
    return sorted({finding for name in names for finding in _scan_file(name, root / name)})


def refused(findings: Iterable[Finding], allowed: Mapping[tuple[str, str], str] = ALLOWED) -> list[Finding]:
    """Those that are not allowed."""
    return [found for found in findings if found.rule in NEVER or (found.path, found.what) not in allowed]


def unused(findings: Iterable[Finding], allowed: Mapping[tuple[str, str], str] = ALLOWED) -> list[tuple[str, str]]:
    """What is allowed, and no longer there."""
    return sorted(set(allowed) - {(found.path, found.what) for found in findings})


def _scan_file(name: str, path: Path) -> Iterator[Finding]:
    suffix = path.suffix.lower()
    if path.is_symlink() or suffix not in _TEXTS | _DATA:
        yield Finding(name, 0, "unreadable", "a link" if path.is_symlink() else f"a file of another kind ({suffix})")
        return
    if suffix in _DATA:
        return
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".py" and _encoding(path) not in ("utf-8", "utf-8-sig"):  # Python would read another text
            raise ValueError
    except (ValueError, SyntaxError):
        yield Finding(name, 0, "unreadable", "not text in UTF-8")
        return
    if suffix == ".py":
        yield from scan_python(name, text)
    elif suffix == ".js":
        for number, line in enumerate(text.splitlines(), 1):
            if found := _SCRIPT.search(line):
                yield Finding(name, number, "code from text", found.group())
            if len(line) > _LONGEST_LINE:
                yield Finding(name, number, "unreadable", "a very long line")


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return tokenize.detect_encoding(file.readline)[0]


def scan_python(name: str, text: str) -> Iterator[Finding]:
    """What a Python source is able to do."""
    try:
        found = _Scan(name, ast.parse(text)).found()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield Finding(name, 0, "unreadable", "not Python, or too deep to be read")
        return
    yield from found
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _LONGEST_LINE:
            yield Finding(name, number, "unreadable", "a very long line")


class _Scan(ast.NodeVisitor):
    """One source. `_names` has what a name of it may be, of all its scopes together."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name, self._tree = name, tree
        self._names: dict[str, set[str]] = {}
        self._findings: list[Finding] = []
        self._parameters: list[set[str]] = []
        for node in ast.walk(tree):
            self._learn(node)

    def found(self) -> list[Finding]:
        self.visit(self._tree)
        return self._findings

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                self._names.setdefault(alias.asname or whole, set()).add(whole)
        elif isinstance(node, ast.ImportFrom):  # what one of our modules imports, another could take from there
            for alias in node.names:
                whole = f"{'' if node.level else node.module}.{alias.name}"
                self._names.setdefault(alias.asname or alias.name, set()).add(whole)
        for field in ("id", "name", "asname", "arg", "attr"):
            word = getattr(node, field, None)
            if isinstance(word, str) and not word.isascii():
                self._note(node, "unreadable", "a name with letters that look like others")

    def _note(self, node: ast.AST, rule: str, what: str) -> None:
        self._findings.append(Finding(self._name, getattr(node, "lineno", 0), rule, what))

    def _check(self, node: ast.AST, whole: str) -> bool:
        """Note it, if a full name is of a rule, be it through other modules."""
        parts = whole.split(".")
        for start in range(len(parts)):
            rest = ".".join(
                (parts[start].removeprefix("_") if start else parts[0], *parts[start + 1 :])
            )  # threading._sys
            for rule, names in RULES.items():
                for name in names:
                    if start and "." not in name and start + 1 == len(parts):
                        continue  # an attribute that is called like a module, such as `error.socket`
                    if _begins(rest, name):
                        self._note(node, rule, name.rstrip("*"))
                        return True
        return False

    def _wholes(self, node: ast.expr) -> set[str]:
        """The full names that ``a.b.c`` may be."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, set())
        if isinstance(node, ast.Attribute):
            return {f"{whole}.{node.attr}" for whole in self._wholes(node.value)}
        return set()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._check(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self._note(node, "attributes by name", "import *")
            elif not node.level:
                whole = f"{node.module}.{alias.name}"
                if not self._check(node, whole) and whole.rpartition(".")[2] in _POWERFUL and whole not in _PLAIN:
                    self._note(node, "attributes by name", f"{alias.name} as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        wholes = self._wholes(node)
        known = [self._check(node, whole) for whole in wholes]
        if node.attr == "__dict__" and wholes:
            self._note(node, "attributes by name", "__dict__ of what is imported")
        if node.attr in _ATTRIBUTES and not any(known) and not wholes & _PLAIN:
            self._note(node, _ATTRIBUTES[node.attr], f".{node.attr}")
        value: ast.expr = node.value
        while isinstance(value, ast.Attribute):  # a chain is one name
            value = value.value
        if not isinstance(value, ast.Name):
            self.visit(value)
        elif value.id not in self._names or value.id in _BUILT_IN:
            self._built_in(value)

    def visit_Name(self, node: ast.Name) -> None:
        self._built_in(node)
        if isinstance(node.ctx, ast.Load):
            for whole in self._names.get(node.id, ()):
                if not self._check(node, whole) and whole in _POWERFUL:
                    self._note(node, "attributes by name", f"{whole} as a value")

    def _built_in(self, node: ast.Name) -> None:
        if node.id in _GETTERS and node.id not in self._names:
            self._note(node, "attributes by name", f"{node.id} as a value")
        rule = _BUILT_IN.get(node.id)
        own = node.id == "compile" and any(node.id in names for names in self._parameters)
        if rule and isinstance(node.ctx, ast.Load) and not own:
            self._note(node, rule, node.id)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in _GETTERS:
            match node.args:
                case [owner, ast.Constant(value=str(word)), *others]:  # the attribute itself
                    self.visit(ast.copy_location(ast.Attribute(owner, word, ast.Load()), node))
                    for other in others:
                        self.visit(other)
                case arguments:
                    for part in (*arguments, *node.keywords):
                        self.visit(part)
            return
        if isinstance(node.func, ast.Attribute) and node.func.attr == "decode":
            for word in (*node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(word, ast.Constant) and isinstance(word.value, str) and _ENCODINGS.search(word.value):
                    self._note(node, "hidden code", f".decode({word.value!r})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(text, str):
            if found := _HIDDEN_NAMES.search(text):
                self._note(node, "attributes by name", found.group())
            last = 0x7F if isinstance(node.value, bytes) else 0x3000
            if _PACKED.search(text) or sum(not " " <= c < chr(last) and c not in "\n\t" for c in text) > 32:
                self._note(node, "hidden code", "a packed text")
        elif isinstance(text, int) and text.bit_length() > 512:
            self._note(node, "hidden code", "a packed number")

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        own = node.args
        around = [*own.defaults, *(default for default in own.kw_defaults if default)]
        for part in (*around, *getattr(node, "decorator_list", ())):
            self.visit(part)
        if getattr(node, "returns", None):
            self.visit(node.returns)
        every = [*own.posonlyargs, *own.args, *own.kwonlyargs, *(arg for arg in (own.vararg, own.kwarg) if arg)]
        for argument in every:
            if argument.annotation:
                self.visit(argument.annotation)
        self._parameters.append({argument.arg for argument in every})
        for inside in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(inside)
        self._parameters.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function


#: What is called like something else, and harmless.
_PLAIN = {"platform.system", "torch.export", "os.path", "torch.types"}


def _begins(whole: str, name: str) -> bool:
    if name.endswith("*"):
        return whole.startswith(name[:-1])
    return whole == name or whole.startswith(f"{name}.")
