"""Settings read: dataclasses from mappings, numbers in range, and classes by name or module."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")
LARGEST_INTEGER = 2.0**53
"""Up to which a float is every whole number."""


@dataclasses.dataclass(frozen=True)
class ClassSpec:
    """A class by its name and module, as Qlib writes it: a part of the user's own too.

    Parameters
    ----------
    class : name of the class.
    module_path : module that Python can import, or a .py file, looked for beside the workflow and
        then in the working directory; its digest is kept with the run, which imports no other.
    kwargs : arguments of the class, checked before any data are read.
    """

    class_: str
    module_path: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def keys_of(cls: Any) -> tuple[str, ...]:
    """The keys of the block that the dataclass ``cls`` stands for; ``class_`` is ``class``.

    Examples
    --------
    >>> keys_of(ClassSpec)
    ('class', 'module_path', 'kwargs')
    """
    return tuple(field.name.removesuffix("_") for field in dataclasses.fields(cls))


OWN_PART = keys_of(ClassSpec)
"""Keys of a class of the user's own, as Qlib writes them."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the closest known name, or the list of known names."""
    known = sorted(map(str, known))
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else f" Known: {', '.join(known)}."


def display(value: Any) -> str:
    """``value`` as a message shows it: short, and with YAML's words for nothing, true and false.

    >>> display(None), display(True), display("a"), display(["a"] * 99)
    ('null', 'true', "'a'", "['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', …")
    """
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:61]}…"


def as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """``value`` where it is a mapping, an empty one for nothing.

    Raises
    ------
    ConfigError
        Anything else; the message begins with ``where``.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {display(value)}.")
    return value


def check_text(value: Any, where: str, what: str) -> None:
    """Check that ``value`` is a word that is not empty; ``what`` it names stands in the error.

    Raises
    ------
    ConfigError
        It is not; the message begins with ``where``.
    """
    if not isinstance(value, str) or not value.strip():
        hint = "; quote it" if isinstance(value, int | float) else ""
        raise ConfigError(f"{where}: expected {what}, got {display(value)}{hint}.")


def check_keys(mapping: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Check that every key of ``mapping`` is in ``known``.

    Raises
    ------
    ConfigError
        ``mapping`` is none, or the first key that is unknown; the nearest known one is named.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {display(mapping)}.")
    known = list(known)
    for key in mapping:
        if not isinstance(key, str) or key not in known:
            hint = nearest(key, known) if known else " It takes no options."
            raise ConfigError(f"{where}: unknown key {key!r}.{hint}")


def from_mapping(cls: type[T], mapping: Mapping[str, Any] | T | None, where: str) -> T:
    """Build the dataclass ``cls`` from ``mapping``; an instance of ``cls`` passes through.

    Raises
    ------
    ConfigError
        A key is unknown or missing, or a value is refused; the message begins with ``where``.
    """
    if isinstance(mapping, cls):
        return mapping
    mapping = {} if mapping is None else mapping
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_keys(mapping, fields, where)  # type: ignore[arg-type]
    missing = [
        name
        for name, f in fields.items()
        if name not in mapping  # type: ignore[operator]
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(map(repr, missing))}.")
    try:
        return cls(**mapping)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def named(value: Any, where: str) -> Mapping[str, Any]:
    """``value`` as a mapping that :func:`resolve` takes: a plain name stands for itself alone.

    Raises
    ------
    ConfigError
        Anything else than a name, a mapping with a ``name``, or one with ``class`` and
        ``module_path``.
    """
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a name or a mapping, got {value!r}.")
    if "class" in value or "module_path" in value:
        check_keys(value, OWN_PART, where)
        for key in OWN_PART[:2]:
            if not isinstance(value.get(key), str):
                raise ConfigError(
                    f"{where}: a class of your own is given by `class` and `module_path` (a "
                    f"module, or a .py file); {key!r} is {value.get(key)!r}."
                )
        if not isinstance(value.get("kwargs") or {}, Mapping):
            raise ConfigError(f"{where}: kwargs: expected a mapping, got {value['kwargs']!r}.")
    elif not isinstance(value.get("name"), str):
        raise ConfigError(
            f"{where}: 'name' is missing (or, for a class of your own, `class` and `module_path`)."
        )
    return value


def title(spec: Mapping[str, Any] | str) -> str:
    """What messages call the part that ``spec`` names: its registered name or its class."""
    return spec if isinstance(spec, str) else str(spec.get("name", spec.get("class")))


def resolve(
    spec: Mapping[str, Any] | str, registry: Mapping[str, Any], room: str
) -> tuple[Any, dict[str, Any]]:
    """The class that ``spec`` names, and the options that it gives.

    ``spec`` is a name in ``registry``; a mapping of a ``name`` and options; or, as in Qlib, one of
    ``class``, ``module_path`` and ``kwargs``, where ``module_path`` is a module that Python can
    import or the path of a .py file. ``room`` is what messages call it, such as ``predictor``.

    Raises
    ------
    ConfigError
        An unknown name (the nearest is named), a malformed mapping, or a class that cannot be
        loaded.

    Examples
    --------
    >>> resolve({"name": "range", "stop": 3}, {"range": range}, "sequence")
    (<class 'range'>, {'stop': 3})
    >>> resolve({"class": "OrderedDict", "module_path": "collections"}, {}, "mapping")
    (<class 'collections.OrderedDict'>, {})
    """
    spec = named(spec, room)
    if "class" in spec:
        return _load(spec, room), dict(spec.get("kwargs") or {})
    options = dict(spec)
    return lookup(registry, options.pop("name"), room), options


def build(
    spec: Mapping[str, Any] | str, registry: Mapping[str, Any], room: str, *arguments: Any
) -> Any:
    """What :func:`resolve` finds, called with ``arguments`` and the options.

    Raises
    ------
    ConfigError
        As :func:`resolve`; an option that is unknown, missing or outside its range.
    """
    cls, options = resolve(spec, registry, room)
    where = f"{room} {title(spec)!r}"
    if dataclasses.is_dataclass(cls) and not arguments:
        return from_mapping(cls, options, where)  # type: ignore[arg-type]
    signature = inspect.signature(cls)
    if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        check_keys(options, list(signature.parameters)[len(arguments) :], where)
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}.") from error
    try:
        return cls(*arguments, **options)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except Exception as error:  # a user's class, or a library's, may raise anything
        raise ConfigError(
            f"{where}: cannot be made of these options ({type(error).__name__}: {error})."
        ) from error


def own_parts(config: Any) -> list[dict[str, str]]:
    """Every class that ``config`` (mappings and lists) names by ``class`` and ``module_path``.

    Each with the ``sha256`` of the file that it lives in, empty for Qlib's and this package's own.
    """
    out = []
    for part in _parts(config):
        one = {"class": str(part["class"]), "module_path": str(part["module_path"])}
        one["sha256"] = "" if _is_shipped(one) else _source_digest(one, "module_path")
        if one not in out:
            out.append(one)
    return out


def load_own_parts(config: Any, allowed: Iterable[Mapping[str, str]], where: str) -> None:
    """Import the classes in ``config``, each only after it was found among the ``allowed``.

    ``allowed`` is what :func:`own_parts` gave when the user's own workflow ran.

    Raises
    ------
    ConfigError
        A class, which is named, that ``allowed`` does not list, whose file is missing or has
        changed since, or that cannot be imported.
    """
    known = {(one["class"], one["module_path"]): one["sha256"] for one in allowed}
    for part in _parts(config):
        place = str(part["class"]), str(part["module_path"])
        if place not in known:
            raise ConfigError(
                f"{where} names the class {place[0]} of {place[1]}, which the run's own "
                "configuration did not list: it is not imported. The artifacts were changed after "
                "the run; run its workflow again."
            )
        if known[place] and _source_digest(part, where) != known[place]:
            raise ConfigError(
                f"{where}: {place[1]}, where its class {place[0]} lives, has changed since the "
                "run; put it back as it was, or run its workflow again."
            )
        _load(part, where)


def _parts(config: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(config, Mapping):
        if "module_path" in config and "class" in config:
            yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _parts(value)


def _is_shipped(spec: Mapping[str, Any]) -> bool:
    return str(spec["module_path"]).partition(".")[0] in ("qlib", __package__)


def _source_digest(spec: Mapping[str, Any], where: str) -> str:
    """SHA-256 of the file that the module of ``spec`` lives in; a .py file is not run for that."""
    path = str(spec["module_path"])
    is_file = path.endswith(".py")
    file = _file(path, where) if is_file else getattr(_module(path, where), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _file(path: str, where: str) -> Path:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ConfigError(
            f"{where}: no file {file}, named as module_path; a relative path is looked for beside "
            "the workflow, then in the working directory."
        )
    return file


def _module(path: str, where: str) -> Any:
    """The module ``path``; a file is run once for each content, under a name of its own."""
    try:
        if not path.endswith(".py"):
            return importlib.import_module(path)
        file = _file(path, where)
        digest = hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()
        name = f"own_part_{file.stem}_{digest[:12]}"
        if name in sys.modules:
            return sys.modules[name]
        found = importlib.util.spec_from_file_location(name, file)
        assert found is not None and found.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(found)
        try:
            found.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except (ImportError, SyntaxError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{where}: module_path {path!r} cannot be imported ({type(error).__name__}: {error}); "
            "name a .py file, or a module in a folder of PYTHONPATH."
        ) from error


def _load(spec: Mapping[str, Any], where: str) -> Any:
    module = _module(spec["module_path"], where)
    name = spec["class"]
    if not callable(found := getattr(module, name, None)):
        public = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigError(
            f"{where}: no class {name!r} in {spec['module_path']}.{nearest(name, public)}"
        )
    return found


def lookup(registry: Mapping[str, T], name: str, what: str, where: str = "") -> T:
    """The entry ``name`` of ``registry``; ``what`` it is, and ``where``, stand in the error.

    Raises
    ------
    ConfigError
        There is none; the message names the nearest.
    """
    place = f"{where}: " if where else ""
    if not isinstance(name, str):
        raise ConfigError(f"{place}expected the name of a {what}, got {display(name)}.")
    if name not in registry:
        raise ConfigError(f"{place}unknown {what} {name!r}.{nearest(name, registry)}")
    return registry[name]


def render(path: Path) -> str:
    """The text of a workflow or comparison with environment variables filled in by Jinja.

    Raises
    ------
    ConfigError
        A variable without a default is not set, or the template is malformed; the message names it.
    """
    from jinja2 import Environment, StrictUndefined, TemplateError, UndefinedError

    try:
        template = Environment(undefined=StrictUndefined).from_string(path.read_text())
        return template.render(os.environ)
    except UndefinedError as error:
        raise ConfigError(
            f"{path}: {error.message}; set that environment variable, or give it a default: "
            "{{ NAME | default('...', true) }}."
        ) from error
    except TemplateError as error:
        raise ConfigError(f"{path} is no Jinja template: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}.") from error


def check_number(
    value: Any,
    name: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    integer: bool = False,
) -> None:
    """Check that ``value`` is a finite number in ``[low, high]``.

    ``open_low`` excludes ``low`` itself; ``integer`` also asks for a whole number (5.0 is one).

    Raises
    ------
    ConfigError
        It is not; the message begins with ``name``.
    """
    kind = "a whole number" if integer else "a number"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{name}: expected {kind}, got {value!r}.")
    number = float(value)
    if not math.isfinite(number) or (integer and not number.is_integer()):
        raise ConfigError(f"{name}: expected {kind}, finite, got {value!r}.")
    if number < low or number > high or (open_low and number == low):
        left = f"{'>' if open_low else '>='} {low:g}" if low > -math.inf else ""
        right = f"<= {high:g}" if high < math.inf else ""
        raise ConfigError(
            f"{name}: must be {' and '.join(filter(None, (left, right)))}, got {value!r}."
        )
    if integer and abs(number) > LARGEST_INTEGER:
        raise ConfigError(f"{name}: {value!r} is too large a number.")
