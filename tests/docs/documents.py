"""The pages of README and docs/, and what tests take from them: blocks, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "benchmarks/README.md")
PROGRAMS = ("bpqp", "qrun", "make")
_FENCE = re.compile(r"^(```+|~~~+)\{?([\w-]*)\}?.*?\n(.*?)^\1", flags=re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^(?: {4}.*)\n)+", flags=re.MULTILINE)
_HEADING = re.compile(r"^#+ +(.+?) *$", flags=re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    """A Markdown file of the repository, as committed."""

    path: Path

    @property
    def name(self) -> str:
        """Its path below the repository's root."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """Its text without fenced and indented blocks."""
        return _INDENTED.sub("", _FENCE.sub("", self.text))

    def blocks(self, language: str) -> list[str]:
        """The fenced blocks of a language."""
        return [body for _, word, body in _FENCE.findall(self.text) if word == language]

    @property
    def own_files(self) -> set[str]:
        """Names of the files that it shows: those of a block's first line, ``# mine.yaml``."""
        blocks = [b for language in ("yaml", "py") for b in self.blocks(language)]
        return {found[1] for b in blocks if (found := re.match(r"# ([\w-]+\.\w+)\n", b))}

    @property
    def code(self) -> list[str]:
        """What stands in backticks within the prose."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures that are no web addresses."""
        return [t for t in _LINK.findall(self.prose) if not re.match(r"\w+:", t)]

    @property
    def anchors(self) -> set[str]:
        """The names that a link may give to headings, as GitHub and MyST write them."""
        heads = _HEADING.findall(_FENCE.sub("", self.text))
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}

    def commands(self) -> Iterator[list[str]]:
        """Words of each command line of ours in the page's blocks, and in its backticks."""
        shells = ("", "bash", "sh", "console", "shell")
        blocks = [b for language in shells for b in self.blocks(language)]
        blocks += _INDENTED.findall(_FENCE.sub("", self.text))
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            yield from commands_in(line)
        for span in self.code:
            if re.match(rf"({'|'.join(PROGRAMS)}) +\S", span) and "…" not in span:
                yield from commands_in(span)


def commands_in(line: str) -> Iterator[list[str]]:
    """Words of the commands of ours in a line of a shell, without comments and redirections."""
    try:
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    except ValueError:  # no line of a shell: a drawing, or an apostrophe
        return
    command: list[str] | None = None
    for word in [*words, ";"]:
        if word.endswith(";") or word in ("&&", "||", "|", ">", "2>>"):
            if command:
                yield command
            command = None
        elif command is not None:
            command.append(word)
        elif Path(word).name in PROGRAMS:
            command = [Path(word).name]


def pages() -> list[Page]:
    """The README and its likes, and every page below docs/ that is committed."""
    below = sorted((ROOT / "docs").rglob("*.md"))
    return [Page(ROOT / name) for name in LOOSE] + [
        Page(path) for path in below if "_generated" not in path.parts
    ]
